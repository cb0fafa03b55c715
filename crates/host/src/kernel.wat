;; The hot half of `extism:host/env`: what a guest calls thousands of times a frame, as wasm next
;; to the guest (2 ns a call; a native function costs 25). Allocation and everything rare is
;; native, so block metadata is out of the guest's reach. No function here loops or calls.
;;
;; $dirty is the end of what was allocated or written since the host last cleared the memory. It
;; is never past the memory's end, so a store below it needs no other check, and stores into a
;; block never move it.
(module
  (memory (export "memory") 16)
  (global $input_offset (export "input_offset") (mut i64) (i64.const 0))
  (global $input_length (export "input_length") (mut i64) (i64.const 0))
  (global $dirty (export "dirty") (mut i64) (i64.const 0))

  (func $end (result i64)
    (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))

  ;; Makes room for a write that ends at $end; traps outside the memory.
  (func $extend (param $end i64)
    (if (i64.gt_u (local.get $end) (call $end)) (then (unreachable)))
    (global.set $dirty (local.get $end)))

  (func (export "load_u8") (param $at i64) (result i32)
    (if (i64.lt_u (local.get $at) (i64.const 64)) (then (return (i32.const 0))))
    (if (i64.ge_u (local.get $at) (call $end)) (then (return (i32.const 0))))
    (i32.load8_u (i32.wrap_i64 (local.get $at))))

  (func (export "load_u64") (param $at i64) (result i64)
    (i64.load (i32.wrap_i64 (local.get $at))))

  (func (export "store_u8") (param $at i64) (param $value i32)
    (if (i64.lt_u (local.get $at) (i64.const 64)) (then (return)))
    (if (i64.ge_u (local.get $at) (call $end)) (then (return)))
    (if (i64.ge_u (local.get $at) (global.get $dirty))
      (then (global.set $dirty (i64.add (local.get $at) (i64.const 1)))))
    (i32.store8 (i32.wrap_i64 (local.get $at)) (local.get $value)))

  (func (export "store_u64") (param $at i64) (param $value i64) (local $end i64)
    (local.set $end
      (i64.add (i64.and (local.get $at) (i64.const 0xffffffff)) (i64.const 8)))
    (if (i64.gt_u (local.get $end) (global.get $dirty)) (then (call $extend (local.get $end))))
    (i64.store (i32.wrap_i64 (local.get $at)) (local.get $value)))

  (func (export "get_input_length") (result i64)
    (global.get $input_length))

  (func (export "input_load_u8") (param $at i64) (result i32)
    (if (i64.ge_u (local.get $at) (global.get $input_length)) (then (return (i32.const 0))))
    (i32.load8_u (i32.wrap_i64 (i64.add (global.get $input_offset) (local.get $at)))))

  (func (export "input_load_u64") (param $at i64) (result i64)
    (i64.load (i32.wrap_i64 (i64.add (global.get $input_offset) (local.get $at))))))
