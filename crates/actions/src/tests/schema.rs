//! The frozen schema files say what the types say.

use ids::ActionName;

use crate::{actions, find, latest, registry::Action};

/// The file of the newest version is what the type says; those before it are frozen, and tidy holds their hashes.
fn check<T: schemars::JsonSchema + Action>(folder: &str, readme: &str) {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = format!("{}/src/{folder}/schema.v{}.json", env!("CARGO_MANIFEST_DIR"), T::INFO.version);
    expect_test::expect_file![path].assert_eq(&text);
    assert!(readme.starts_with(&format!("# {}\n", folder.replace('_', "."))), "{folder}/README.md");
    for property in schema.get("properties").and_then(|all| all.as_object()).into_iter().flat_map(|all| all.keys()) {
        assert!(readme.contains(&format!("`{property}`")), "{folder}/README.md does not explain {property}");
    }
}

#[test]
fn schema_files_agree_with_the_types() {
    check::<crate::app_deploy::AppDeploy>("app_deploy", include_str!("../app_deploy/README.md"));
    check::<crate::app_logs::AppLogs>("app_logs", include_str!("../app_logs/README.md"));
    check::<crate::app_logs_follow::AppLogsFollow>("app_logs_follow", include_str!("../app_logs_follow/README.md"));
    check::<crate::app_plan::AppPlan>("app_plan", include_str!("../app_plan/README.md"));
    check::<crate::app_remove::AppRemove>("app_remove", include_str!("../app_remove/README.md"));
    check::<crate::app_restart::AppRestart>("app_restart", include_str!("../app_restart/README.md"));
    check::<crate::app_secrets_rewrap::AppSecretsRewrap>(
        "app_secrets_rewrap",
        include_str!("../app_secrets_rewrap/README.md"),
    );
    check::<crate::app_start::AppStart>("app_start", include_str!("../app_start/README.md"));
    check::<crate::app_stop::AppStop>("app_stop", include_str!("../app_stop/README.md"));
    check::<crate::command_cancel::CommandCancel>("command_cancel", include_str!("../command_cancel/README.md"));
    check::<crate::docker_containers::DockerContainers>(
        "docker_containers",
        include_str!("../docker_containers/README.md"),
    );
    check::<crate::host_facts::HostFacts>("host_facts", include_str!("../host_facts/README.md"));
    check::<crate::host_keys_rotate::HostKeysRotate>("host_keys_rotate", include_str!("../host_keys_rotate/README.md"));
    check::<crate::host_retire::HostRetire>("host_retire", include_str!("../host_retire/README.md"));
    check::<crate::standing_drop::StandingDrop>("standing_drop", include_str!("../standing_drop/README.md"));
    check::<crate::standing_install::StandingInstall>(
        "standing_install",
        include_str!("../standing_install/README.md"),
    );
    check::<crate::standing_renew::StandingRenew>("standing_renew", include_str!("../standing_renew/README.md"));
}

#[test]
fn every_action_is_described_and_found() {
    for info in actions() {
        let name: ActionName = info.name.parse().unwrap();
        assert_eq!(find(&name, info.version).map(|found| found.name), Some(info.name));
        assert!(latest(&name).unwrap().version >= info.version);
        assert!((1..info.version).all(|earlier| find(&name, earlier).is_some()), "{name} has a gap");
        assert!(find(&name, info.version + 1000).is_none());
        let schema: serde_json::Value = serde_json::from_str(info.schema).unwrap();
        assert!(schema["description"].is_string(), "{} has no description", info.name);
        assert_eq!(schema["additionalProperties"], serde_json::Value::Bool(false), "{}", info.name);
        for (property, entry) in schema["properties"].as_object().into_iter().flatten() {
            assert!(entry["description"].is_string(), "{}: {property} has no description", info.name);
        }
    }
}
