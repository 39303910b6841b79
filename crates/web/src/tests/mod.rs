//! The whole router over the real store: what people see, and who may not.

mod accounts;
mod agents;
mod approvals;
mod audit;
mod bundle;
mod claims;
mod denial;
mod figures;
mod hosts;
mod keys;
mod lists;
mod meanwhile;
mod openapi;
mod output;
mod people;
mod problems;
mod recovery;
mod restored;
mod root;
mod scenes;
mod served;
mod stream;
mod work;
mod world;
mod world_people;
mod world_root;
