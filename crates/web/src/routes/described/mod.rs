//! What the OpenAPI document says of each route beyond its line in the table. Only the tests know it:
//! they make the document from it, and fail when a route has none of these or one of these has no route.

mod entries;

use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub(crate) use self::entries::operations;
use crate::{list::List, problem::Kind};

/// Writes the schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>() -> SchemaOf {
    SchemaGenerator::subschema_for::<T>
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    Nothing,
    Json(SchemaOf),
    /// Server-sent events, each with JSON of the type.
    Events(SchemaOf),
    /// Text of the media type.
    Text(&'static str),
    Bytes,
}

/// One route.
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) path_parameter: Option<SchemaOf>,
    /// A type with one field for each parameter of the query.
    pub(crate) query: Option<SchemaOf>,
    /// What pages may be sorted by.
    pub(crate) list: Option<&'static List>,
    pub(crate) body: Option<SchemaOf>,
    pub(crate) body_required: bool,
    pub(crate) answers: Vec<(u16, Content)>,
    /// Problems beside those that its shape and access bring with them.
    pub(crate) problems: Vec<Kind>,
}

impl Operation {
    fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            path_parameter: None,
            query: None,
            list: None,
            body: None,
            body_required: true,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Its path has a parameter of this type.
    fn at<T: JsonSchema>(mut self) -> Self {
        self.path_parameter = Some(schema_of::<T>());
        self
    }

    fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(T::json_schema);
        self
    }

    /// Answers with a page of a list.
    fn page<Filter: JsonSchema, Page: JsonSchema>(mut self, list: &'static List) -> Self {
        self.list = Some(list);
        self.query::<Filter>().json::<Page>(200)
    }

    fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(schema_of::<T>());
        self
    }

    fn may_take<T: JsonSchema>(mut self) -> Self {
        self.body_required = false;
        self.takes::<T>()
    }

    fn json<T: JsonSchema>(self, status: u16) -> Self {
        self.answer(status, Content::Json(schema_of::<T>()))
    }

    fn answer(mut self, status: u16, content: Content) -> Self {
        self.answers.push((status, content));
        self
    }

    fn may_be(mut self, problems: &[Kind]) -> Self {
        self.problems.extend_from_slice(problems);
        self
    }
}
