//! Parameters of an action, from `--param name=value` and `--params FILE.json`, typed by the
//! action's JSON Schema. The host checks them again; here a person learns of a mistake early and
//! with the names that would have been right.

use api::FieldError;
use serde_json::{Map, Value};

/// What a parameter may be, as far as one word on a command line can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    /// A list, a mapping, or something with alternatives.
    Nested,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Nested => "a list or mapping",
        }
    }
}

/// One parameter of an action, for people.
pub(crate) struct Described<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) required: bool,
    pub(crate) description: &'a str,
}

/// The parameters of a schema, by name.
pub(crate) fn described(schema: &Value) -> Vec<Described<'_>> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| Described {
            name,
            kind: kind(property).words(),
            required: required(schema).any(|other| other == name),
            description: property["description"].as_str().unwrap_or_default(),
        })
        .collect()
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn kind(property: &Value) -> Kind {
    let word = |word: &str| match word {
        "string" => Kind::Text,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        _ => Kind::Nested,
    };
    match &property["type"] {
        Value::String(name) => word(name),
        // `null` stands for an absent one.
        Value::Array(names) => {
            match names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect::<Vec<_>>()[..] {
                [only] => word(only),
                _ => Kind::Nested,
            }
        }
        _ => Kind::Nested,
    }
}

/// Puts the parameters together. `file` comes first, each pair goes over it.
///
/// # Errors
/// Everything that is wrong, by parameter.
pub(crate) fn read(schema: &Value, file: Option<Value>, pairs: &[(String, String)]) -> Result<Value, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: String| errors.push(FieldError { field: field.to_owned(), message });
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let mut parameters = match file {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => {
            wrong("--params", "the file should hold a JSON object".to_owned());
            Map::new()
        }
    };
    for name in parameters.keys().filter(|name| !properties.contains_key(*name)) {
        wrong(name, unknown(&properties));
    }
    for (at, (name, text)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(other, _)| other == name) {
            wrong(name, "is given twice".to_owned());
            continue;
        }
        match properties.get(name).map(|property| value(property, text)) {
            None => wrong(name, unknown(&properties)),
            Some(Err(message)) => wrong(name, message),
            Some(Ok(value)) => {
                parameters.insert(name.clone(), value);
            }
        }
    }
    for name in
        required(schema).filter(|name| !parameters.contains_key(*name) && !pairs.iter().any(|(given, _)| given == name))
    {
        wrong(
            name,
            format!("is missing: {} is needed", properties.get(name).map_or("it", |property| kind(property).words())),
        );
    }
    if errors.is_empty() { Ok(Value::Object(parameters)) } else { Err(errors) }
}

fn unknown(properties: &Map<String, Value>) -> String {
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    match names.as_slice() {
        [] => "there is no such parameter: the action takes none".to_owned(),
        names => format!("there is no such parameter; there are: {}", names.join(", ")),
    }
}

/// One value from its text.
fn value(property: &Value, text: &str) -> Result<Value, String> {
    let kind = kind(property);
    let expected = || format!("{text:?} is not {}", kind.words());
    let value = match kind {
        Kind::Text => Value::from(text),
        Kind::Boolean => Value::from(text.parse::<bool>().map_err(|_| expected())?),
        Kind::Integer => match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(number), _) => Value::from(number),
            (_, Ok(number)) => Value::from(number),
            _ => return Err(expected()),
        },
        Kind::Number => {
            let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            Value::from(number.ok_or_else(expected)?)
        }
        Kind::Nested => return Err("is a list or mapping: give it in a JSON file with --params".to_owned()),
    };
    match property["enum"].as_array() {
        Some(allowed) if !allowed.contains(&value) => {
            let words: Vec<String> = allowed.iter().filter(|one| !one.is_null()).map(ToString::to_string).collect();
            Err(format!("{text:?} is not one of {}", words.join(", ")))
        }
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "app": {"type": "string", "description": "The app."},
                "tail": {"type": ["integer", "null"]},
                "ratio": {"type": "number"},
                "force": {"type": "boolean"},
                "level": {"type": "string", "enum": ["low", "high"]},
                "spec": {"$ref": "#/$defs/Spec"},
                "names": {"type": "array"},
            },
            "required": ["app"],
            "additionalProperties": false,
        })
    }

    fn check(pairs: &[(&str, &str)], file: Option<Value>) -> Result<Value, Vec<String>> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&schema(), file, &pairs)
            .map_err(|e| e.into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect())
    }

    #[test]
    fn values_get_the_type_the_schema_asks_for() {
        let pairs = [("app", "1"), ("tail", "20"), ("ratio", "0.5"), ("force", "true"), ("level", "low")];
        let expected = json!({"app": "1", "tail": 20, "ratio": 0.5, "force": true, "level": "low"});
        assert_eq!(check(&pairs, None), Ok(expected));
        assert_eq!(check(&[("app", ""), ("tail", "-3")], None), Ok(json!({"app": "", "tail": -3})));
        assert_eq!(
            check(&[("app", "b")], Some(json!({"app": "a", "names": ["x"]}))),
            Ok(json!({"app": "b", "names": ["x"]}))
        );
    }

    #[test]
    fn what_is_wrong_is_named_all_at_once() {
        let wrong = check(
            &[
                ("tial", "1"),
                ("tail", "many"),
                ("force", "yes"),
                ("level", "middle"),
                ("names", "x"),
                ("spec", "{}"),
                ("tail", "2"),
            ],
            Some(json!({"extra": 1})),
        );
        let expected = expect_test::expect![[r#"
            extra: there is no such parameter; there are: app, force, level, names, ratio, spec, tail
            tial: there is no such parameter; there are: app, force, level, names, ratio, spec, tail
            tail: "many" is not a whole number
            force: "yes" is not true or false
            level: "middle" is not one of "low", "high"
            names: is a list or mapping: give it in a JSON file with --params
            spec: is a list or mapping: give it in a JSON file with --params
            tail: is given twice
            app: is missing: text is needed"#]];
        expected.assert_eq(&wrong.expect_err("wrong").join("\n"));
        assert!(check(&[("app", "a")], Some(json!([1]))).is_err());
    }

    #[test]
    fn the_schemas_of_this_version_are_understood() {
        for info in actions::actions() {
            let schema: Value = serde_json::from_str(info.schema).unwrap();
            for parameter in described(&schema) {
                assert!(!parameter.description.is_empty(), "{} {}", info.name, parameter.name);
            }
        }
        let name = "app.logs".parse().unwrap();
        let schema: Value = serde_json::from_str(actions::latest(&name).unwrap().schema).unwrap();
        let kinds: Vec<_> = described(&schema).iter().map(|one| (one.name, one.kind, one.required)).collect();
        assert_eq!(kinds, [("app", "text", true), ("service", "text", false), ("tail", "a whole number", false)]);
    }
}
