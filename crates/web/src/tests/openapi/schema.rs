//! Whether a value is what a schema of the document says. Only the words of JSON Schema that the document
//! uses: any other is an error, so that nothing is passed over. Stricter than JSON Schema in one thing: a
//! property that no schema names is wrong, because nobody could know of it.

use serde_json::{Map, Value};

/// Where a check stands.
pub(super) struct Check<'a> {
    pub(super) document: &'a Value,
}

impl<'a> Check<'a> {
    /// What a reference within the document points to.
    pub(super) fn resolved(&self, reference: &str) -> Option<&'a Value> {
        self.document.pointer(reference.strip_prefix('#')?)
    }

    /// # Errors
    /// The place and what is wrong there.
    pub(super) fn value(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Object(schema) => schema,
            _ => return Err(format!("{at}: nothing can be this")),
        };
        for (word, says) in schema {
            self.word(word, says, value, at)?;
        }
        match value {
            Value::Object(object) => self.properties(schema, object, at),
            _ => Ok(()),
        }
    }

    fn word(&self, word: &str, says: &Value, value: &Value, at: &str) -> Result<(), String> {
        let wrong = || Err(format!("{at}: {value} against {word} {says}"));
        let all = |schemas: &Value| schemas.as_array().cloned().unwrap_or_default();
        let count =
            |schemas: &Value| all(schemas).iter().filter(|schema| self.value(schema, value, at).is_ok()).count();
        let holds = match word {
            "description" | "title" | "default" | "properties" | "required" | "additionalProperties" => true,
            "$ref" => {
                let schema = says.as_str().and_then(|reference| self.resolved(reference));
                return self.value(schema.ok_or_else(|| format!("{at}: no {says}"))?, value, at);
            }
            "allOf" => return all(says).iter().try_for_each(|schema| self.value(schema, value, at)),
            "anyOf" => count(says) > 0,
            "oneOf" => count(says) == 1,
            "type" => says.as_array().map_or_else(|| is_of(says, value), |any| any.iter().any(|one| is_of(one, value))),
            "const" => says == value,
            "enum" => all(says).contains(value),
            "format" => is_formatted(says, value),
            "minimum" => value.as_f64() >= says.as_f64(),
            "maximum" => value.as_f64() <= says.as_f64(),
            "minLength" => value.as_str().map(|text| text.chars().count() as u64) >= says.as_u64(),
            "maxLength" => value.as_str().map(|text| text.chars().count() as u64) <= says.as_u64(),
            "items" => {
                let mut items = value.as_array().into_iter().flatten().enumerate();
                return items.try_for_each(|(index, item)| self.value(says, item, &format!("{at}[{index}]")));
            }
            _ => panic!("{at}: this check does not know the word {word} ({says}); teach it"),
        };
        if holds { Ok(()) } else { wrong() }
    }

    fn properties(&self, schema: &Map<String, Value>, object: &Map<String, Value>, at: &str) -> Result<(), String> {
        let named = schema.get("properties").and_then(Value::as_object);
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let name = required.as_str().unwrap_or_default();
            if !object.contains_key(name) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        // Another part of the schema may name them.
        let partial = ["$ref", "allOf", "anyOf", "oneOf"].iter().any(|word| schema.contains_key(*word));
        for (name, value) in object {
            let at = format!("{at}.{name}");
            match (named.and_then(|named| named.get(name)), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema)) => self.value(schema, value, &at)?,
                (None, None) if named.is_some() && !partial => return Err(format!("{at} is not documented")),
                (None, None) => {}
            }
        }
        Ok(())
    }
}

fn is_of(word: &Value, value: &Value) -> bool {
    match word.as_str().unwrap_or_default() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

fn is_formatted(format: &Value, value: &Value) -> bool {
    // A null is the business of `type`.
    if value.is_null() {
        return true;
    }
    match format.as_str().unwrap_or_default() {
        "uuid" => value.as_str().is_some_and(|text| text.parse::<ids::CommandId>().is_ok()),
        "date-time" => serde_json::from_value::<api::Timestamp>(value.clone()).is_ok(),
        "uint8" => value.as_u64().is_some_and(|number| u8::try_from(number).is_ok()),
        "uint16" => value.as_u64().is_some_and(|number| u16::try_from(number).is_ok()),
        "uint32" => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        "uint64" | "uint" => value.is_u64(),
        other => panic!("this check does not know the format {other}; teach it"),
    }
}
