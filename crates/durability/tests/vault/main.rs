//! What a vault keeps of rooms, whatever the store and other processes do.

#[path = "../common/faulty.rs"]
mod faulty;

mod audit;
mod between;
mod faults;
mod floors;
mod import;
mod lease;
mod parked;
mod rebuild;
mod reseal;
mod residents;
mod support;
mod sweep;
mod tamper;
