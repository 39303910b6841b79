//! What it costs to change the command key of the whole fleet under orders, and how long a stolen one is good for: root
//! metadata drafted and signed here as the command line does it, through the API.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use envelope::root::{OnlineKey, OnlineRole, StagedKeys, TrustedRoot, next_version, sign_root};
use ids::{DurationMs, UnixMs};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{Bench, Fault, PATIENCE, host_name, propose, until};

/// Pause between two looks at a change.
const LOOK: Duration = Duration::from_millis(100);

impl Bench<'_> {
    /// The command key is changed while one order after the other goes to all.
    pub(crate) async fn rotate_command_key(&mut self) -> Result<(), Fault> {
        let change = self.changed("POST", "/api/v1/keys/command/rotation", &Value::Null).await?;
        let published = Instant::now();
        self.root(&change, StagedKeys::publish).await?;
        let is_in_use = AtomicBool::new(false);
        let orders = async {
            let mut orders = 0.0;
            while !is_in_use.load(Ordering::Relaxed) {
                self.order_once().await?;
                orders += 1.0;
            }
            Ok::<_, Fault>(orders)
        };
        let in_use = async {
            let change = self.waited_for(|change| !change["activated_at"].is_null()).await;
            is_in_use.store(true, Ordering::Relaxed);
            change.map(|_| published.elapsed().as_secs_f64())
        };
        let (orders, span) = tokio::join!(orders, in_use);
        let (orders, span) = (orders?, span?);
        self.measured.add("command key changed: orders to all meanwhile, each ended well", "", orders);
        self.measured.add("command key changed: published to acknowledged by all and in use", "s", span);
        let change = self.waited_for(|change| change["orders_under_way"] == 0).await?;
        self.root(&change, StagedKeys::drop_old).await?;
        self.waited_for(|change| change["state"] == "retired").await?;
        self.measured.add(
            "command key changed: published to old key destroyed",
            "s",
            published.elapsed().as_secs_f64(),
        );
        Ok(())
    }

    /// The command key in use is shut out.
    pub(crate) async fn revoke_command_key(&mut self) -> Result<(), Fault> {
        let list = self.keys().await?;
        let is_it = |key: &&Value| key["role"] == "command" && key["state"] == "in_use";
        let stolen = list["keys"].as_array().and_then(|keys| keys.iter().find(is_it)).cloned().unwrap_or_default();
        let request = json!({ "key": stolen["key"] });
        let change = self.changed("POST", "/api/v1/keys/command/revocation", &request).await?;
        let sessions = self.agents + 1;
        let wanted = *self.world.roots_taken.borrow() + sessions;
        let published = Instant::now();
        self.root(&change, StagedKeys::publish).await?;
        until(&self.world.roots_taken, |count| count >= wanted, wanted, "hosts that refuse the stolen key").await?;
        self.measured.add("stolen command key: last connected host refuses it", "s", published.elapsed().as_secs_f64());
        self.waited_for(|change| change["state"] == "retired").await?;
        self.order_once().await
    }

    /// One order to all, to its end; a refusal of any host is an end that is not well.
    async fn order_once(&self) -> Result<(), Fault> {
        let hosts: Vec<String> = (1..=self.agents).map(host_name).collect();
        let operation = propose(self.plane, &hosts).await?;
        self.settled(&operation).await
    }

    async fn keys(&self) -> Result<Value, Fault> {
        self.changed("GET", "/api/v1/keys", &Value::Null).await
    }

    /// The newest change of the command key.
    async fn change(&self) -> Result<Value, Fault> {
        let list = self.keys().await?;
        let changes = list["changes"].as_array().cloned().unwrap_or_default();
        let found = changes.into_iter().find(|change| change["role"] == "command");
        found.ok_or_else(|| Fault::Plane("no change of the command key is known".to_owned()))
    }

    async fn waited_for(&self, is_so: impl Fn(&Value) -> bool) -> Result<Value, Fault> {
        let began = Instant::now();
        loop {
            let change = self.change().await?;
            if is_so(&change) {
                return Ok(change);
            }
            if began.elapsed() > PATIENCE {
                return Err(Fault::Plane(format!("a change of the command key stands still: {change}")));
            }
            sleep(LOOK).await;
        }
    }

    async fn changed(&self, method: &str, path: &str, body: &Value) -> Result<Value, Fault> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.plane.ask(method, path, &body).await?;
        if status == 200 { Ok(serde_json::from_str(&answer)?) } else { Err(Fault::Plane(format!("{path}: {answer}"))) }
    }

    /// Puts the version in force that the change waits for.
    async fn root(
        &self,
        change: &Value,
        edits: fn(&StagedKeys, &envelope::messages::RootMetadata) -> Vec<envelope::root::Edit>,
    ) -> Result<(), Fault> {
        let key = |field: &str| {
            let text = change[field].as_str().unwrap_or_default();
            text.parse::<OnlineKey>().map_err(|why| Fault::Plane(format!("{field}: {why}")))
        };
        let staged = StagedKeys {
            role: OnlineRole::Command,
            old: key("old_key")?,
            new: key("new_key")?,
            fresh: key("fresh_key")?,
            is_emergency: change["emergency"] == true,
        };
        let chain = self.changed("GET", "/api/v1/fleet/root", &Value::Null).await?;
        let bytes = |text: &Value| BASE64.decode(text.as_str().unwrap_or_default().as_bytes()).unwrap_or_default();
        let chain: Vec<Vec<u8>> = chain["root_chain"].as_array().into_iter().flatten().map(bytes).collect();
        let root = TrustedRoot::from_stored(&chain)?;
        let issued = UnixMs(crate::member::wall_ms()).max(root.current().issued.plus(DurationMs(1)));
        let next = next_version(root.current(), &edits(&staged, root.current()), issued)
            .map_err(|error| Fault::Plane(error.to_string()))?;
        let envelope = sign_root(&[&self.plane.root_key], &next);
        let body = json!({ "envelope": BASE64.encode(&envelope) });
        self.changed("PUT", "/api/v1/fleet/root", &body).await.map(drop)
    }
}
