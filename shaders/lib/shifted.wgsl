// Where UNeXt's shifted tokens come from: the channels of x fall into up to five groups of `chunk`, and each group moves by its
// own number of pixels (-2 to 2) along one axis. shift.wgsl has the picture.
//
// Forward and gradients (shifted_linear.wgsl, shifted_linear_backward.wgsl) have these sizes in common.

struct Params {
    rows: u32,
    inputs: u32,
    outputs: u32,
    chunk: u32,        // channels of a group
    length: u32,       // extent of the axis
    step: u32,         // rows between neighbours on the axis
    has_bias: u32,
    has_residual: u32,
    chunk_rows: u32,   // weight gradient: rows of a chunk
    first_chunk: u32,  // weight gradient: chunks before this launch's
    input_groups: u32, // backward_v2: workgroups for gx; the others make the partial sums
}

@group(0) @binding(0) var<uniform> params: Params;

/// By how many pixels a channel of x moves.
fn shift_of(channel: u32) -> i32 {
    return i32(channel / params.chunk) - 2;
}

/// Where a row stands on the axis.
fn position(row: u32) -> i32 {
    return i32((row / params.step) % params.length);
}

fn inside(at: i32) -> bool {
    return at >= 0 && at < i32(params.length);
}

/// The row that stands `by` pixels further on the axis.
fn neighbour(row: u32, by: i32) -> u32 {
    return u32(i32(row) + by * i32(params.step));
}
