//! The frozen schema files say what the types say.

use ids::ActionName;

use crate::{actions, find, latest};

fn check<T: schemars::JsonSchema>(folder: &str) {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = format!("{}/src/{folder}/schema.v1.json", env!("CARGO_MANIFEST_DIR"));
    expect_test::expect_file![path].assert_eq(&text);
}

#[test]
fn schema_files_agree_with_the_types() {
    check::<crate::app_deploy::AppDeploy>("app_deploy");
    check::<crate::app_logs::AppLogs>("app_logs");
    check::<crate::app_plan::AppPlan>("app_plan");
    check::<crate::app_remove::AppRemove>("app_remove");
    check::<crate::command_cancel::CommandCancel>("command_cancel");
    check::<crate::docker_containers::DockerContainers>("docker_containers");
    check::<crate::host_facts::HostFacts>("host_facts");
}

#[test]
fn every_action_is_described_and_found() {
    for info in actions() {
        let name: ActionName = info.name.parse().unwrap();
        assert_eq!(find(&name, info.version).map(|found| found.name), Some(info.name));
        assert!(latest(&name).unwrap().version >= info.version);
        assert!(find(&name, info.version + 1000).is_none());
        let schema: serde_json::Value = serde_json::from_str(info.schema).unwrap();
        assert!(schema["description"].is_string(), "{} has no description", info.name);
        assert_eq!(schema["additionalProperties"], serde_json::Value::Bool(false), "{}", info.name);
        for (property, entry) in schema["properties"].as_object().into_iter().flatten() {
            assert!(entry["description"].is_string(), "{}: {property} has no description", info.name);
        }
        let folder = format!("{}/src/{}", env!("CARGO_MANIFEST_DIR"), info.name.replace('.', "_"));
        assert!(std::path::Path::new(&folder).join("README.md").is_file(), "{folder} has no README.md");
    }
}
