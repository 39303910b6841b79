//! `extends`: a service over another one, of the same file or another.

use std::rc::Rc;

use super::{Assembly, Loaded, Wanted};
use crate::{
    limits::EXTENDS_DEPTH_MAX,
    paths,
    reading::{Field, Reading, Value, is_extension},
    yaml::{Entry, Kind, Node},
};

/// What `extends` names.
struct Base {
    service: String,
    /// Path and whether a variable reached it.
    file: Option<(String, bool)>,
}

/// A service on the way: its source, its name.
type Trail = Vec<(u16, String)>;

impl Assembly<'_, '_> {
    /// The file's tree with its services extended.
    pub(super) fn extended_tree(&mut self, loaded: &Loaded) -> Rc<Node> {
        let Some(services) = loaded.tree.get("services") else { return Rc::clone(&loaded.tree) };
        if !services.entries().iter().any(|entry| entry.value.get("extends").is_some()) {
            return Rc::clone(&loaded.tree);
        }
        let mut entries = services.entries().to_vec();
        for entry in &mut entries {
            if let Some(extended) = self.extended_service(loaded, &entry.key, &mut Vec::new()) {
                entry.value = extended;
            }
        }
        let services = Node::new(services.at, Kind::Mapping(entries));
        let entries = loaded.tree.entries().iter().map(|entry| match entry.key.as_str() {
            "services" => Entry { value: Rc::clone(&services), ..entry.clone() },
            _ => entry.clone(),
        });
        Node::new(loaded.tree.at, Kind::Mapping(entries.collect()))
    }

    /// One service of a file with all it extends put in; `None` if the file has none of that name, or
    /// what it extends is not there.
    fn extended_service(&mut self, loaded: &Loaded, name: &str, trail: &mut Trail) -> Option<Rc<Node>> {
        let key = (loaded.source, name.to_owned());
        if let Some(done) = self.extended.get(&key) {
            return done.clone();
        }
        let root = Field::root(&loaded.tree);
        let service = root.find("services")?.find(name)?;
        let Some(extends) = service.find("extends") else {
            return Some(Rc::clone(loaded.tree.get("services")?.get(name)?));
        };
        trail.push(key.clone());
        let extended = self.extended_by(loaded, &service, &extends, trail);
        trail.pop();
        self.extended.insert(key, extended.clone());
        extended
    }

    fn extended_by(
        &mut self,
        loaded: &Loaded,
        service: &Field<'_>,
        extends: &Field<'_>,
        trail: &mut Trail,
    ) -> Option<Rc<Node>> {
        let own = without_extends(service.node);
        let Some(base) = base(self.reading, extends) else { return Some(own) };
        let from = match &base.file {
            Some((path, hidden)) => {
                let scope = self.reading.sources.scope(extends.node.at);
                let wanted = Wanted { path: path.clone(), folder: None, scope, by: Some(extends), hidden: *hidden };
                let Some(from) = self.load(&wanted) else { return Some(own) };
                from
            }
            None => loaded.clone(),
        };
        if let Some(at) = trail.iter().position(|(source, name)| *source == from.source && *name == base.service) {
            let names: Vec<&str> = trail[at..].iter().map(|(_, name)| name.as_str()).collect();
            let message = format!("services extend each other in a circle: {} → {}", names.join(" → "), base.service);
            self.reading.refuse_with(extends, message, "remove one of these `extends`");
            return Some(own);
        }
        if trail.len() > EXTENDS_DEPTH_MAX {
            self.reading.refuse(extends, format!("more than {EXTENDS_DEPTH_MAX} services extend each other"));
            return Some(own);
        }
        let known: Vec<&str> = from
            .tree
            .get("services")
            .map(|node| node.entries())
            .unwrap_or_default()
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        if !known.contains(&base.service.as_str()) {
            let message = "the service it extends is not in that file";
            match self.reading.nearest(&base.service, &known) {
                Some(meant) => self.reading.refuse_with(extends, message, format!("did you mean `{meant}`?")),
                None => self.reading.refuse(extends, message),
            }
            return Some(own);
        }
        let Some(node) = self.extended_service(&from, &base.service, trail) else { return Some(own) };
        self.copied = self.copied.saturating_add(node.weight());
        let mut path = vec!["services".to_owned(), service.key.to_owned()];
        Some(self.merged(&node, &own, &mut path))
    }
}

fn without_extends(node: &Node) -> Rc<Node> {
    let entries = node.entries().iter().filter(|entry| entry.key != "extends").cloned().collect();
    Node::new(node.at, Kind::Mapping(entries))
}

/// `extends: name` or `{service: name, file: path}`.
fn base(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Base> {
    let service = |reading: &mut Reading<'_>, field: &Field<'_>| {
        let value = reading.value(field)?;
        Some(reading.name(field, &value, &value.text)?.to_string())
    };
    if !field.is_mapping() {
        return Some(Base { service: service(reading, field)?, file: None });
    }
    let (mut name, mut file) = (None, None);
    for entry in reading.mapping(field)? {
        match entry.key {
            "service" => name = Some(service(reading, &entry)?),
            "file" => {
                let (path, value) = file_path(reading, &entry)?;
                file = Some((path, value.reached));
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`extends`", &["service", "file"], &[]),
        }
    }
    if name.is_none() {
        reading.refuse_with(field, "`extends` has no `service`", "name the service it extends: `service: web`");
    }
    Some(Base { service: name?, file })
}

/// A path that starts in the folder of the file it stands in.
pub(crate) fn file_path(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<(String, Value)> {
    let value = reading.value(field)?;
    match paths::joined(reading.sources.folder(field.node.at), &value.text) {
        Ok(path) => Some((path, value)),
        Err(reason) => {
            reading.refuse_value(field, &value, reason);
            None
        }
    }
}
