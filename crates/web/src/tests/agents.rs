//! The agent's program: public, whole, bounded.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

use api::AgentProgram;
use axum::{
    body::{Body, to_bytes},
    http::{Method, StatusCode},
};
use ids::{Sha256, sha256};
use serde_json::json;
use tower::ServiceExt as _;

use super::world::World;
use crate::{AgentPrograms, edge::Peer, limits};

/// Serves one file, if it is there.
pub(super) struct Served(pub(super) PathBuf);

impl Served {
    fn read(&self) -> Option<Vec<u8>> {
        fs::read(&self.0).ok()
    }
}

impl AgentPrograms for Served {
    fn list(&self) -> Vec<AgentProgram> {
        let of = |bytes: Vec<u8>| AgentProgram {
            architecture: "x86_64".to_owned(),
            sha256: sha256(&bytes),
            size_bytes: bytes.len() as u64,
        };
        self.read().map(of).into_iter().collect()
    }

    fn open(&self, wanted: Sha256) -> io::Result<Option<(File, u64)>> {
        match self.read() {
            Some(bytes) if sha256(&bytes) == wanted => Ok(Some((File::open(&self.0)?, bytes.len() as u64))),
            _ => Ok(None),
        }
    }
}

/// More than one piece, and not a whole number of them.
fn program() -> Vec<u8> {
    (0u32..200_000).flat_map(u32::to_le_bytes).collect()
}

async fn fetch(world: &World, sha256: &str) -> (StatusCode, Vec<u8>) {
    let mut request = World::request(Method::GET, &format!("/agents/{sha256}"), None, None);
    request.extensions_mut().insert(Peer(([192, 0, 2, 1], 50_000).into()));
    let response = world.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body: Body = response.into_body();
    (status, to_bytes(body, usize::MAX).await.unwrap().to_vec())
}

#[tokio::test]
async fn a_program_is_listed_and_fetched_whole_by_its_hash_by_anyone() {
    let world = World::new().await;
    assert_eq!(world.get("/api/v1/agents").await.json, json!([]), "none is there");
    let bytes = program();
    assert!(bytes.len() as u64 > limits::DOWNLOAD_PIECE_BYTES);
    fs::write(world.agent_file(), &bytes).unwrap();
    let listed = world.get("/api/v1/agents").await.json;
    let hash = sha256(&bytes).to_string();
    assert_eq!(listed, json!([{ "architecture": "x86_64", "sha256": hash, "size_bytes": bytes.len() }]));
    assert_eq!(fetch(&world, &hash).await, (StatusCode::OK, bytes));

    let head = world.send(World::request(Method::HEAD, &format!("/agents/{hash}"), None, None)).await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "800000"));
    let other = world.send(World::request(Method::GET, &format!("/agents/{}", "0".repeat(64)), None, None)).await;
    assert_eq!((other.status, other.problem()), (StatusCode::NOT_FOUND, "agent-not-found"));
    let odd = world.send(World::request(Method::GET, "/agents/..%2f..%2fetc%2fpasswd", None, None)).await;
    assert_ne!(odd.status, StatusCode::OK);
}

#[tokio::test]
async fn one_address_cannot_fetch_without_end() {
    const PEER: [u8; 4] = [198, 51, 100, 9];
    let world = World::new().await;
    fs::write(world.agent_file(), b"x").unwrap();
    let path = format!("/agents/{}", sha256(b"x"));
    for _ in 0..limits::DOWNLOADS_PER_PEER {
        assert_eq!(world.send_from(PEER, World::request(Method::GET, &path, None, None)).await.status, StatusCode::OK);
    }
    let refused = world.send_from(PEER, World::request(Method::GET, &path, None, None)).await;
    assert_eq!((refused.status, refused.problem()), (StatusCode::TOO_MANY_REQUESTS, "too-many-downloads"));
    assert_eq!(refused.header("retry-after"), "10");
    assert_eq!(fetch(&world, &sha256(b"x").to_string()).await.0, StatusCode::OK, "others are not held up");
}

#[tokio::test]
async fn a_file_that_shrinks_on_its_way_is_seen_to_be_cut() {
    let world = World::new().await;
    let bytes = program();
    fs::write(world.agent_file(), &bytes).unwrap();
    let mut request = World::request(Method::GET, &format!("/agents/{}", sha256(&bytes)), None, None);
    request.extensions_mut().insert(Peer(([192, 0, 2, 1], 50_000).into()));
    let response = world.router.clone().oneshot(request).await.unwrap();
    File::options().write(true).open(world.agent_file()).unwrap().set_len(300_000).unwrap();
    assert!(to_bytes(response.into_body(), usize::MAX).await.is_err(), "an error, not a short program");
}

#[tokio::test]
async fn one_address_cannot_hold_every_place() {
    let world = World::new().await;
    let bytes = program();
    fs::write(world.agent_file(), &bytes).unwrap();
    let path = format!("/agents/{}", sha256(&bytes));
    let begin = async |last: u8| {
        let mut request = World::request(Method::GET, &path, None, None);
        request.extensions_mut().insert(Peer(([192, 0, 2, last], 50_000).into()));
        world.router.clone().oneshot(request).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..limits::DOWNLOADS_AT_ONCE_PER_PEER_MAX {
        let response = begin(66).await;
        assert_eq!(response.status(), StatusCode::OK);
        held.push(response);
    }
    assert_eq!(begin(66).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(begin(1).await.status(), StatusCode::OK, "others have theirs");
    let last = held.pop().unwrap();
    assert_eq!(to_bytes(last.into_body(), usize::MAX).await.unwrap().len(), bytes.len());
    // The place is free once the last piece is handed over, which is before the last one is taken.
    assert_eq!(begin(66).await.status(), StatusCode::OK);
}
