//! The edge of the guest: every byte in and out crosses here, and nowhere else is `unsafe`.
//!
//! On wasm32 these are the host's imports, on any other target the in-memory host of
//! [`testing`](crate::testing). A payload is staged in the host's own memory ("kernel" memory, whose
//! addresses are not the guest's) eight bytes a call, and its block is freed when the call is done.

#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::host::{
    config_get, end, fail, identical, input, kv_delete, kv_get, kv_set, log, output, post, send,
    set_input_context,
};

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod wasm {
    //! The imports of `extism:host/env` and `extism:host/user`.

    mod env {
        //! Kernel memory.

        #[link(wasm_import_module = "extism:host/env")]
        // SAFETY: names and signatures are those of docs/ABI.md. Every argument is an integer that
        // the host treats as an address in kernel memory, never in ours, so no value of it can
        // break a Rust invariant; the worst the host does is trap.
        unsafe extern "C" {
            pub safe fn alloc(bytes: u64) -> u64;
            pub safe fn free(offset: u64);
            pub safe fn length(offset: u64) -> u64;
            pub safe fn load_u8(offset: u64) -> u32;
            pub safe fn load_u64(offset: u64) -> u64;
            pub safe fn store_u8(offset: u64, value: u32);
            pub safe fn store_u64(offset: u64, value: u64);
            pub safe fn input_length() -> u64;
            pub safe fn input_load_u8(index: u64) -> u32;
            pub safe fn input_load_u64(index: u64) -> u64;
            pub safe fn output_set(offset: u64, bytes: u64);
            pub safe fn error_set(offset: u64);
        }
    }

    mod user {
        //! The ten game functions.

        #[link(wasm_import_module = "extism:host/user")]
        // SAFETY: names and signatures are those of docs/ABI.md. As above: integers in, integers
        // out, and the host never touches our memory.
        unsafe extern "C" {
            pub safe fn send(player: u64, payload: u64) -> u64;
            pub safe fn identical(payload: u64) -> u64;
            pub safe fn set_input_context(context: u64);
            pub safe fn end(result: u64);
            pub safe fn post(result: u64);
            pub safe fn log(level: u64, message: u64);
            pub safe fn kv_get(player: u64, key: u64) -> u64;
            pub safe fn kv_set(player: u64, key: u64, value: u64, rule: u64);
            pub safe fn kv_delete(player: u64, key: u64);
            pub safe fn config_get(key: u64) -> u64;
        }
    }

    /// Replaces the contents of `payload` with the callback's input.
    pub(crate) fn input(payload: &mut Vec<u8>) {
        let bytes = env::input_length();
        // The address space is 32 bits; no host has an input that does not fit it.
        payload.resize(bytes as usize, 0);
        load(
            payload,
            |at| env::input_load_u64(at),
            |at| env::input_load_u8(at),
        );
    }

    /// Sets the callback's output. The block stays: the host reads it after the callback.
    pub(crate) fn output(bytes: &[u8]) {
        if let Some(block) = Block::holding(bytes) {
            env::output_set(block.0, bytes.len() as u64);
            core::mem::forget(block);
        }
    }

    /// Ends the call as a failure with this text.
    pub(crate) fn fail(reason: &str) {
        if let Some(block) = Block::holding(reason.as_bytes()) {
            env::error_set(block.0);
            core::mem::forget(block);
        }
    }

    /// Sends a frame container to one seat; the slot's epoch, or `None` when the host had no
    /// memory to stage it.
    pub(crate) fn send(index: u32, payload: &[u8]) -> Option<u32> {
        let block = Block::holding(payload)?;
        // The upper 32 bits are reserved.
        Some(user::send(u64::from(index), block.0) as u32)
    }

    /// Sends a frame container to everyone, as [`send`].
    pub(crate) fn identical(payload: &[u8]) -> Option<u32> {
        let block = Block::holding(payload)?;
        Some(user::identical(block.0) as u32)
    }

    /// Says how the room reads what is typed.
    pub(crate) fn set_input_context(context: u8) {
        user::set_input_context(u64::from(context));
    }

    /// Ends the room with an encoded result; whether the host had memory to stage it.
    pub(crate) fn end(result: &[u8]) -> bool {
        let block = Block::holding(result);
        block.inspect(|block| user::end(block.0)).is_some()
    }

    /// Posts an encoded result, as [`end`].
    pub(crate) fn post(result: &[u8]) -> bool {
        let block = Block::holding(result);
        block.inspect(|block| user::post(block.0)).is_some()
    }

    /// Writes to the room's log.
    pub(crate) fn log(level: u8, message: &[u8]) {
        if let Some(block) = Block::holding(message) {
            user::log(u64::from(level), block.0);
        }
    }

    /// Replaces `value` with the stored one; whether there was one.
    pub(crate) fn kv_get(index: u32, key: &[u8], value: &mut Vec<u8>) -> bool {
        match Block::holding(key) {
            Some(key) => take(user::kv_get(u64::from(index), key.0), value),
            None => false,
        }
    }

    /// Stores a value.
    pub(crate) fn kv_set(index: u32, key: &[u8], value: &[u8], rule: &[u8]) {
        let blocks = (
            Block::holding(key),
            Block::holding(value),
            Block::holding(rule),
        );
        if let (Some(key), Some(value), Some(rule)) = blocks {
            user::kv_set(u64::from(index), key.0, value.0, rule.0);
        }
    }

    /// Forgets a stored value.
    pub(crate) fn kv_delete(index: u32, key: &[u8]) {
        if let Some(key) = Block::holding(key) {
            user::kv_delete(u64::from(index), key.0);
        }
    }

    /// Replaces `value` with the configured one; whether there was one.
    pub(crate) fn config_get(key: &[u8], value: &mut Vec<u8>) -> bool {
        match Block::holding(key) {
            Some(key) => take(user::config_get(key.0), value),
            None => false,
        }
    }

    /// A block of kernel memory that is freed with this value. Offset 0 is the empty block.
    struct Block(u64);

    impl Block {
        /// A block with a copy of `bytes`, or `None` when the kernel's memory is full: storing then
        /// would overwrite whatever lives at address 0.
        fn holding(bytes: &[u8]) -> Option<Block> {
            let offset = env::alloc(bytes.len() as u64);
            if offset == 0 && !bytes.is_empty() {
                return None;
            }
            let (words, tail) = bytes.as_chunks::<8>();
            let mut at = offset;
            for word in words {
                env::store_u64(at, u64::from_le_bytes(*word));
                at += 8;
            }
            for &byte in tail {
                env::store_u8(at, u32::from(byte));
                at += 1;
            }
            Some(Block(offset))
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            if self.0 != 0 {
                env::free(self.0);
            }
        }
    }

    /// Moves a block the host allocated for us into `value`; whether there was one.
    fn take(offset: u64, value: &mut Vec<u8>) -> bool {
        if offset == 0 {
            return false;
        }
        let block = Block(offset);
        value.resize(env::length(offset) as usize, 0);
        load(
            value,
            |at| env::load_u64(block.0 + at),
            |at| env::load_u8(block.0 + at),
        );
        true
    }

    /// Fills `bytes` by word and then by byte.
    fn load(bytes: &mut [u8], word: impl Fn(u64) -> u64, byte: impl Fn(u64) -> u32) {
        let (words, tail) = bytes.as_chunks_mut::<8>();
        let mut at = 0;
        for slot in words {
            *slot = word(at).to_le_bytes();
            at += 8;
        }
        for slot in tail {
            *slot = byte(at) as u8;
            at += 1;
        }
    }
}
