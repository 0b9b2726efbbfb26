//! What is computed, by the chain and by operators alone. One binary, since each would hold all libraries.

mod chain;
mod changes;
mod clock;
mod decode;
mod features_oracle;
mod gaps;
mod order;
mod outputs;
mod rules;
mod score;
mod seconds;
mod snapshots;
mod trees;
