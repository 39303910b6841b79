//! The signer: is it there, has it a key that signs, and is it of one mind with the database about root metadata?

use envelope::{
    root::TrustedRoot,
    signer_port::{SignError, SignerKeys},
};

use super::{Finding, checks};
use crate::{config::Config, files::Files, signer_process};

const CHECK: &str = "signer";

/// Asks the one that runs; one that `serve` starts and that does not run is judged by its directory.
pub(super) async fn signer(config: &Config, files: &Files, root: Option<&TrustedRoot>) -> Finding {
    if config.signer_socket.is_some() || checks::is_running(files) {
        let socket = signer_process::socket(config);
        let asked = signer_process::in_time(signer_process::asked_at(&socket).keys()).await;
        return match asked {
            Ok(keys) => keys_finding(&format!("it answers at {}", socket.display()), &keys, root),
            Err(error) => away(&error),
        };
    }
    let place = files.signer();
    let shown = place.directory().display();
    if !place.trust().exists() {
        return if files.earlier_command_key().exists() {
            let found =
                format!("the command key lies where earlier versions kept it; the next `serve` moves it to {shown}");
            Finding::ok(CHECK, found)
        } else {
            let advice = "If the signer is a service of its own, say where it listens with signer_socket or --signer-socket; otherwise restore its directory from the same backup as the database.";
            Finding::fail(CHECK, format!("there are no command keys in {shown}"), advice)
        };
    }
    match ::signer::examine(&place) {
        Ok(keys) => keys_finding(&format!("its directory {shown} is whole, and `serve` starts it"), &keys, root),
        Err(error) => Finding::error(CHECK, &error),
    }
}

fn away(error: &SignError) -> Finding {
    let advice = "Start it (`systemctl start serverflow-signer`, where it is a service of its own) and look at its log. Orders wait meanwhile.";
    Finding::fail(CHECK, error.to_string(), advice)
}

fn keys_finding(how: &str, keys: &SignerKeys, root: Option<&TrustedRoot>) -> Finding {
    let held = match keys.keys.len() {
        1 => "1 command key".to_owned(),
        many => format!("{many} command keys"),
    };
    let Some((version, payload_sha256)) = keys.root else {
        let advice = "Start the control plane, which hands it root metadata. If that does not help, its log says why.";
        return Finding::fail(CHECK, format!("{how}; it has no fleet yet ({held})"), advice);
    };
    if keys.is_impaired {
        let advice = "See to its disk; it goes on by itself.";
        return Finding::fail(CHECK, format!("{how}; it cannot write its record, so it signs no order"), advice);
    }
    if !keys.can_sign() {
        let advice = "Restore its directory from the newest backup, or have root metadata list one of its keys and activate that.";
        let found = format!("{how}; none of its {held} is active and listed in its root metadata, version {version}");
        return Finding::fail(CHECK, found, advice);
    }
    if let Some(root) = root.filter(|root| root.version() == version && root.payload_sha256() != payload_sha256) {
        let version = root.version();
        let advice =
            "It is the signer of another fleet, or the database is another fleet's: give those that belong together.";
        let found = format!("{how}; its root metadata version {version} is not the one in the database");
        return Finding::fail(CHECK, found, advice);
    }
    if let Some(root) = root.filter(|root| root.version() != version) {
        let found =
            format!("{how}; it judges by root metadata version {version}, and the database has {}", root.version());
        let advice = "A running control plane hands newer versions to it by itself. If the signer's is the newer one, the database is an old copy.";
        return Finding::warn(CHECK, found, advice);
    }
    Finding::ok(CHECK, format!("{how}; it holds {held} and judges by root metadata version {version}"))
}
