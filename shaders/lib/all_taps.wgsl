// All rows of the tile engine see all taps.
//
// The including file has gemm_taps().

struct Taps {
    count: u32,
}

fn taps_of(first_row: u32, last_row: u32) -> Taps { return Taps(gemm_taps()); }
fn nth_tap(taps: Taps, n: u32) -> u32 { return n; }
