//! Every codec: examples, edges, properties, hostile bytes and golden vectors.

mod cell;
mod ctx;
mod delta;
mod hostile;
mod input;
mod json;
mod meta;
mod meta_rules;
mod outcome;
mod own_vectors;
mod own_verdicts;
mod reference_vectors;
mod scenarios;
mod support;
