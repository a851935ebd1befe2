// Where UNeXt's shifted tokens come from: the channels of x fall into up to five groups of `chunk`, and each group moves by its
// own number of pixels (-2 to 2) along one axis. shift.wgsl has the picture.
//
// The including file has in its Params: chunk, length (the extent of the axis) and step (the rows between neighbours on it).

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
