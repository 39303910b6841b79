//! The OpenAPI document, made from the route table, what is described of each route, and the types.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    access::Access,
    limits,
    problem::Kind,
    routes::{
        self, Route,
        described::{Content, Operation, SchemaOf, operations},
    },
};

const ABOUT: &str = "Everything people and scripts ask of a ServerFlow control plane. Fields may be added to \
    answers, never renamed or removed: ignore those you do not know. Every error is `application/problem+json` \
    (RFC 9457), with a `type` that scripts may rely on and a `detail` that says what happened, to what, and what to \
    do next.";

/// One generator for what is taken and one for what is answered: a field that may be left out of a
/// request may always be there in an answer.
///
/// Problems are answers that many routes share: each set of kinds of one status is written once.
struct Schemas {
    asked: SchemaGenerator,
    answered: SchemaGenerator,
    problems: BTreeMap<String, Value>,
}

impl Schemas {
    fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        let (asked, answered) = (settings.clone().into_generator(), settings.for_serialize().into_generator());
        Self { asked, answered, problems: BTreeMap::new() }
    }

    fn asked(&mut self, schema: SchemaOf) -> Value {
        schema(&mut self.asked).into()
    }

    fn answered(&mut self, schema: SchemaOf) -> Value {
        schema(&mut self.answered).into()
    }

    /// A reference to the answer with one of these kinds.
    fn problem(&mut self, status: StatusCode, kinds: &[Kind]) -> Value {
        let urns: Vec<_> = kinds.iter().map(|kind| kind.urn()).collect();
        let titles: Vec<_> = kinds.iter().map(|kind| kind.title()).collect();
        let mut schema = self.answered(SchemaGenerator::subschema_for::<api::Problem>);
        schema["properties"] = json!({ "type": { "enum": urns } });
        let content = json!({ "application/problem+json": { "schema": schema } });
        let mut response = json!({ "description": titles.join("; "), "content": content });
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
            let seconds = json!({ "type": "integer", "minimum": 0 });
            let about = "When to try again, in seconds, if that can be said.";
            response["headers"] = json!({ "Retry-After": { "description": about, "schema": seconds } });
        }
        let words: Vec<_> = urns.iter().filter_map(|urn| urn.rsplit(':').next()).collect();
        let name = words.join(".");
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        self.problems.insert(name, response);
        reference
    }

    fn schemas(&mut self) -> Map<String, Value> {
        let mut all = self.answered.take_definitions(true);
        for (name, schema) in self.asked.take_definitions(true) {
            let other = all.insert(name.clone(), schema.clone());
            assert!(other.is_none_or(|other| other == schema), "{name} differs between requests and answers");
        }
        all
    }
}

/// The document as it has to be.
pub(super) fn document() -> Value {
    let mut schemas = Schemas::new();
    let table = routes::table();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut tags = BTreeSet::new();
    for operation in operations() {
        let route = table.iter().find(|route| route.method == operation.method && route.path == operation.path);
        let route = route.unwrap_or_else(|| panic!("{} is described, and no route", operation.id));
        let method = operation.method.as_str().to_lowercase();
        tags.insert(tag(operation.path));
        let written = described(&mut schemas, route, &operation);
        let before = paths.entry(operation.path).or_default().insert(method, written);
        assert!(before.is_none(), "{} {} is described twice", operation.method, operation.path);
    }
    sorted(json!({
        "openapi": "3.1.1",
        "info": {
            "title": "ServerFlow control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The control plane that serves this document" }],
        "tags": tags.into_iter().map(|tag| json!({ "name": tag })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas.schemas(),
            "responses": schemas.problems,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of a session (`POST /api/v1/session`) or an API token (`POST /api/v1/tokens`).",
                },
            },
        },
    }))
}

/// What a path is about.
fn tag(path: &str) -> &str {
    let word = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
    word.filter(|word| !word.contains('.')).unwrap_or("control-plane")
}

fn described(schemas: &mut Schemas, route: &Route, operation: &Operation) -> Value {
    let mut written = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [tag(operation.path)],
        "parameters": parameters(schemas, operation),
        "responses": responses(schemas, route, operation),
    });
    let (role, security) = match route.access {
        Access::Open => ("Open to anyone.".to_owned(), json!([])),
        Access::Role(role) | Access::Person(role) => {
            written["x-serverflow-role"] = json!(role.as_str());
            (format!("Least role: {role}."), json!([{ "bearer": [] }]))
        }
    };
    let person = matches!(route.access, Access::Person(_));
    written["security"] = security;
    written["x-serverflow-api-token"] = json!(!person);
    let not_by_token = if person { " Not with an API token." } else { "" };
    let recorded = route.leaf.map(|leaf| {
        written["x-serverflow-audit"] = json!(leaf.as_str());
        format!(" Leaves an entry `{}` in the audit log.", leaf.as_str())
    });
    written["description"] = json!(format!("{role}{not_by_token}{}", recorded.unwrap_or_default()));
    if let Some(body) = operation.body {
        let schema = schemas.asked(body);
        let content = json!({ "application/json": { "schema": schema } });
        written["requestBody"] = json!({ "required": operation.body_required, "content": content });
    }
    written
}

fn parameters(schemas: &mut Schemas, operation: &Operation) -> Vec<Value> {
    let mut all = Vec::new();
    if let Some(schema) = operation.path_parameter {
        let name = operation.path.split(['{', '}']).nth(1).unwrap_or_default();
        all.push(json!({ "name": name, "in": "path", "required": true, "schema": schemas.asked(schema) }));
    }
    let Some(query) = operation.query else { return all };
    let query = schemas.asked(query);
    let properties = query["properties"].as_object().expect("a query has fields");
    for (name, schema) in sorted(json!(properties)).as_object().expect("an object") {
        let mut schema = not_null(schema);
        match (name.as_str(), operation.list) {
            ("limit", Some(_)) => {
                let (least, most) = (1, limits::LIST_MAX);
                schema = json!({
                    "type": "integer", "minimum": least, "maximum": most, "default": limits::LIST_DEFAULT,
                    "description": "How many to answer with at most; a page may be shorter.",
                });
            }
            ("sort", Some(list)) => {
                let fields = list.sorts.iter().map(|field| field.trim_start_matches('-'));
                let words: Vec<String> = fields.flat_map(|field| [field.to_owned(), format!("-{field}")]).collect();
                let description = "A field; the greatest first behind a `-`.";
                schema = json!({ "enum": words, "default": list.sorts[0], "description": description });
            }
            ("after", Some(_)) => {
                let description = "What `next` said on the page before, with the same `sort`.";
                schema = json!({ "type": "string", "description": description });
            }
            _ => {}
        }
        all.push(json!({ "name": name, "in": "query", "required": false, "schema": schema }));
    }
    all
}

/// A parameter is there or it is not: it is never null.
fn not_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(types) = schema["type"].as_array() {
        schema["type"] = types.iter().find(|word| *word != "null").expect("a type beside null").clone();
    }
    let present = schema["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null")).cloned();
    present.unwrap_or(schema)
}

fn responses(schemas: &mut Schemas, route: &Route, operation: &Operation) -> Map<String, Value> {
    let mut all = Map::new();
    for (status, content) in &operation.answers {
        let mut response = json!({ "description": success(*status) });
        if let Some((media_type, body)) = body(schemas, *content) {
            response["content"] = json!({ media_type: body });
        }
        all.insert(status.to_string(), response);
    }
    let mut problems: BTreeMap<StatusCode, Vec<Kind>> = BTreeMap::new();
    for kind in kinds(route, operation) {
        let of_status = problems.entry(kind.status()).or_default();
        if !of_status.contains(&kind) {
            of_status.push(kind);
        }
    }
    for (status, mut kinds) in problems {
        kinds.sort_by_key(|kind| kind.urn());
        all.insert(status.as_str().to_owned(), schemas.problem(status, &kinds));
    }
    all
}

fn success(status: u16) -> &'static str {
    match status {
        200 => "Done",
        201 => "Made",
        202 => "Taken up, and going on",
        204 => "Done, and nothing to say",
        _ => panic!("{status} is not documented in crate `api`"),
    }
}

fn body(schemas: &mut Schemas, content: Content) -> Option<(&'static str, Value)> {
    match content {
        Content::Nothing => None,
        Content::Json(schema) => Some(("application/json", json!({ "schema": schemas.answered(schema) }))),
        Content::Events(schema) => {
            let description = "Server-sent events. The data of each is JSON of the type that `x-serverflow-event-data` \
                names; comments keep the stream alive.";
            let text = json!({ "type": "string", "description": description });
            let event = schemas.answered(schema);
            Some(("text/event-stream", json!({ "schema": text, "x-serverflow-event-data": event })))
        }
        Content::Text(media_type) => Some((media_type, json!({ "schema": { "type": "string" } }))),
        // No schema: bytes are no JSON.
        Content::Bytes => Some(("application/octet-stream", json!({}))),
    }
}

/// Every problem the route may answer with.
fn kinds(route: &Route, operation: &Operation) -> Vec<Kind> {
    let mut all = vec![Kind::WrongHost, Kind::TooManyRequests, Kind::Internal, Kind::TooSlow, Kind::StoreUnavailable];
    if route.access != Access::Open {
        all.extend([Kind::NotSignedIn, Kind::NotAllowed]);
    }
    if operation.path_parameter.is_some() || operation.query.is_some() {
        all.push(Kind::RequestUnreadable);
    }
    if operation.list.is_some() {
        all.push(Kind::Invalid);
    }
    if operation.body.is_some() {
        all.extend([Kind::RequestUnreadable, Kind::TooLarge, Kind::NotJson, Kind::Invalid, Kind::BodyTooSlow]);
    }
    all.extend(&operation.problems);
    all
}

/// The same document in the one order of keys that the alphabet gives, whatever order maps have in this
/// build, and its texts without the marks that only Rust's documentation reads.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: BTreeMap<String, Value> = object.into_iter().collect();
            let text = |key: &str, value: Value| match value {
                Value::String(text) if key == "description" => Value::String(plain(&text)),
                value => sorted(value),
            };
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), text(&key, value))).collect())
        }
        Value::Array(array) => array.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn plain(text: &str) -> String {
    text.replace("[`crate::", "`").replace("[`", "`").replace("`]", "`").replace('\n', " ")
}
