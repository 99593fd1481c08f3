//! Time and chance of the thread that simulates.
//!
//! Everything in a process that asks for the time or for randomness asks the C
//! library: the standard library's clocks and hash maps, `rand`, the runtime.
//! On the thread that simulates these two functions answer from the simulation;
//! on all others (RocksDB's own) from the kernel. So no part of a member has to
//! be told that its world is not real, and nothing is forgotten.

#![expect(unsafe_code, reason = "two functions of the C library are replaced, which Rust cannot check")]

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};

/// What the wall clock says when a simulation begins: 2026-01-01.
const EPOCH_SECONDS: u64 = 1_767_225_600;
/// Clocks do not begin at 0: there is a time before the simulation.
const BEFORE_SECONDS: u64 = 1_000_000;

const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;
const NANOS: u64 = 1_000_000_000;

thread_local! {
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's time is so many nanoseconds after the beginning.
pub fn set_now(nanos: u64) {
    NOW.set(Some(nanos));
}

/// From now on all randomness on this thread follows from the seed.
pub fn set_seed(seed: u64) {
    CHANCE.set(Some(seed));
}

/// `struct timespec`.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// The C library's function of that name.
///
/// # Safety
/// `time` points to where the time can be written, as its callers have to see to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let simulated = NOW.try_with(Cell::get).ok().flatten();
    // 2 and 3 are the CPU's clocks, which are real.
    let read = match (simulated, clock) {
        (Some(now), 0 | 1 | 4..=7) => {
            let begin =
                if matches!(clock, REALTIME | REALTIME_COARSE) { EPOCH_SECONDS } else { BEFORE_SECONDS };
            Timespec { seconds: (begin + now / NANOS).cast_signed(), nanos: (now % NANOS).cast_signed() }
        }
        _ => match real(clock) {
            Some(read) => read,
            None => return -1,
        },
    };
    // SAFETY: the caller gives a valid pointer.
    unsafe { time.write(read) };
    0
}

fn real(clock: c_int) -> Option<Timespec> {
    use rustix::time::ClockId;
    let id = match clock {
        0 => ClockId::Realtime,
        1 => ClockId::Monotonic,
        2 => ClockId::ProcessCPUTime,
        3 => ClockId::ThreadCPUTime,
        4 => ClockId::MonotonicRaw,
        5 => ClockId::RealtimeCoarse,
        6 => ClockId::MonotonicCoarse,
        _ => return None,
    };
    // Asks the kernel, not the C library.
    let read = rustix::time::clock_gettime(id);
    Some(Timespec { seconds: read.tv_sec, nanos: read.tv_nsec })
}

/// The C library's function of that name.
///
/// # Safety
/// `buffer` points to `len` bytes that can be written, as its callers have to see to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _flags: c_uint) -> isize {
    let seed = CHANCE.try_with(Cell::get).ok().flatten();
    // SAFETY: the caller gives a valid buffer; it is filled with zeros before it is a slice of bytes.
    let bytes = unsafe {
        buffer.cast::<u8>().write_bytes(0, len);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len)
    };
    let Some(mut state) = seed else {
        return match rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(filled) => filled.cast_signed(),
            Err(_) => -1,
        };
    };
    for piece in bytes.chunks_mut(8) {
        let next = splitmix(&mut state).to_le_bytes();
        piece.copy_from_slice(&next[..piece.len()]);
    }
    CHANCE.set(Some(state));
    len.cast_signed()
}

/// Vigna's SplitMix64.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// CPU time of this process, in nanoseconds.
pub fn cpu_nanos() -> u64 {
    let read = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    read.tv_sec.cast_unsigned() * NANOS + read.tv_nsec.cast_unsigned()
}
