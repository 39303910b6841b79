//! Whose a thing is, and what may be said in the path of a request.
//!
//! The engine is one for the whole host, and other people's containers live in it, possibly another
//! agent's too. A thing is ours only if it carries the labels of this fleet and of this host. Names
//! are checked before they are put into a request path, so that none can name another request.

use std::collections::{BTreeMap, HashMap};

use actions::effect::{EffectError, EffectErrorKind, label};
use ids::{AppName, FleetId, HostId};

use super::failure;
use crate::limits;

/// The mark every thing of this agent carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) fleet: FleetId,
    pub(super) host: HostId,
}

impl Owner {
    /// `extra` plus our mark, which wins over anything of the same key.
    pub(super) fn labels<'a>(
        self,
        extra: impl IntoIterator<Item = (&'a str, &'a str)>,
        ours: impl IntoIterator<Item = (&'static str, String)>,
    ) -> HashMap<String, String> {
        let mut labels: HashMap<String, String> =
            extra.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        labels.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
        labels.insert(label::FLEET.to_owned(), self.fleet.to_string());
        labels.insert(label::HOST.to_owned(), self.host.to_string());
        labels
    }

    /// Whether these labels carry our mark.
    pub(super) fn owns(self, labels: &HashMap<String, String>) -> bool {
        labels.get(label::FLEET).is_some_and(|fleet| *fleet == self.fleet.to_string())
            && labels.get(label::HOST).is_some_and(|host| *host == self.host.to_string())
    }

    /// Refuses a thing that is not ours.
    pub(super) fn demand(
        self,
        kind: &str,
        name: &str,
        labels: Option<&HashMap<String, String>>,
    ) -> Result<(), EffectError> {
        if labels.is_some_and(|labels| self.owns(labels)) {
            return Ok(());
        }
        Err(failure::error(
            EffectErrorKind::Conflict,
            format!(
                "There is already a {kind} named {name:?} that this agent did not create, so it was left untouched. \
                 Rename or remove it on the host, or choose another name for the app."
            ),
        ))
    }

    /// Refuses a thing that is not ours, or that belongs to another app of ours.
    pub(super) fn demand_app(
        self,
        kind: &str,
        name: &str,
        labels: Option<&HashMap<String, String>>,
        app: &AppName,
    ) -> Result<(), EffectError> {
        self.demand(kind, name, labels)?;
        let other = labels.and_then(|labels| labels.get(label::APP)).map_or("", String::as_str);
        if other == app.as_str() {
            return Ok(());
        }
        Err(failure::error(
            EffectErrorKind::Conflict,
            format!(
                "The {kind} {name:?} belongs to the app {other:?}, not to {:?}, so it was left untouched. \
                 Choose another name for one of the two.",
                app.as_str()
            ),
        ))
    }

    /// The engine's filter for everything of one app.
    pub(super) fn filter(self, app: &AppName) -> HashMap<String, Vec<String>> {
        let mut filter = self.filter_host();
        filter.entry("label".to_owned()).or_default().push(format!("{}={}", label::APP, app.as_str()));
        filter
    }

    /// The engine's filter for everything of this host.
    pub(super) fn filter_host(self) -> HashMap<String, Vec<String>> {
        let labels = vec![format!("{}={}", label::FLEET, self.fleet), format!("{}={}", label::HOST, self.host)];
        HashMap::from([("label".to_owned(), labels)])
    }
}

/// Whether these labels were given to a container of this name, or of this name before it was put
/// aside. Labels pass from a container to an image made of it (`docker commit`), and from there to
/// what anybody runs from that image: such a container has another name.
pub(super) fn is_named_by(name: &str, labels: &HashMap<String, String>) -> bool {
    let label = |key: &str| labels.get(key).map(String::as_str);
    let given = match (label(label::CONTAINER), label(label::APP), label(label::SERVICE)) {
        (Some(given), _, _) => given.to_owned(),
        // Made by 0.1, which had one way to name them.
        (None, Some(app), Some(service)) => format!("{app}-{service}-1"),
        _ => return false,
    };
    name.strip_prefix(&given).is_some_and(actions::release::is_parked_suffix)
}

/// Text pairs of a map, for [`Owner::labels`].
pub(super) fn pairs(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// A name the engine takes for a container, network or volume (`[a-zA-Z0-9][a-zA-Z0-9_.-]*`).
pub(super) fn check_name(kind: &str, name: &str) -> Result<(), EffectError> {
    let bytes = name.as_bytes();
    let fits = (1..=limits::NAME_LENGTH_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if fits {
        return Ok(());
    }
    Err(failure::error(
        EffectErrorKind::Refused,
        format!("{name:?} cannot be the name of a {kind}: use letters, digits, '_', '.' and '-', at most 255."),
    ))
}

/// An image reference or id that cannot be mistaken for another path.
pub(super) fn check_image(reference: &str) -> Result<(), EffectError> {
    let bytes = reference.as_bytes();
    let fits = (1..=limits::IMAGE_LENGTH_MAX).contains(&bytes.len())
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b':' | b'@'))
        && reference.split('/').all(|part| part.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric));
    if fits {
        return Ok(());
    }
    Err(failure::error(
        EffectErrorKind::Refused,
        format!("{reference:?} is not an image reference. Write it as registry/repository:tag or repository@sha256:…"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(fleet: u8, host: u8) -> Owner {
        Owner { fleet: FleetId::from_bytes([fleet; 16]), host: HostId::from_bytes([host; 16]) }
    }

    #[test]
    fn both_marks_are_needed() {
        let labels = owner(1, 2).labels([], []);
        assert!(owner(1, 2).owns(&labels));
        assert!(!owner(1, 3).owns(&labels));
        assert!(!owner(3, 2).owns(&labels));
        assert!(!owner(1, 2).owns(&HashMap::new()));
    }

    #[test]
    fn a_file_cannot_forge_our_labels() {
        let labels = owner(1, 2)
            .labels([(label::HOST, "other"), (label::APP, "other"), ("a", "b")], [(label::APP, "blog".to_owned())]);
        assert!(owner(1, 2).owns(&labels));
        assert_eq!(labels[label::APP], "blog");
        assert_eq!(labels["a"], "b");
    }

    #[test]
    fn a_copy_by_hand_has_another_name() {
        let labels = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let of_0_1 = labels(&[(label::APP, "shop"), (label::SERVICE, "web")]);
        let now = labels(&[(label::CONTAINER, "shop-web-1"), (label::APP, "x"), (label::SERVICE, "y")]);
        for labels in [&of_0_1, &now] {
            for name in ["shop-web-1", "shop-web-1.previous", "shop-web-1.previous.previous"] {
                assert!(is_named_by(name, labels), "{name}");
            }
            for name in ["shop-web-2", "shop-web-1-copy", "quirky_turing", "shop-web-1.previous2", ""] {
                assert!(!is_named_by(name, labels), "{name}");
            }
        }
        assert!(!is_named_by("shop-web-1", &HashMap::new()));
    }

    #[test]
    fn names_that_could_leave_their_path_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "a?b", "a%2fb", "-a", "a b", "é", &"a".repeat(256)] {
            assert!(check_name("container", name).is_err(), "{name}");
        }
        assert!(check_name("container", "blog-web.1_x").is_ok());
        for image in ["", "..", "../containers/x", "a/../b", "a//b", "/a", "a?b", "a#b", "a%2e", "a b"] {
            assert!(check_image(image).is_err(), "{image}");
        }
        for image in ["nginx", "docker.io/library/nginx:1.27", "localhost:5000/a_b/c@sha256:00ff", "sha256:00ff"] {
            assert!(check_image(image).is_ok(), "{image}");
        }
    }
}
