// The sizes of a convolution, seen as a gather: a position of the source is (o * multiply + k - pad) and counts only where
// it divides by `divide` and lies inside. One gather serves forward and backward_input.

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel_h: u32,
    kernel_w: u32,
    multiply: u32,   // the stride in forward, 1 in backward_input
    divide: u32,     // 1 in forward, the stride in backward_input
    pad_h: i32,
    pad_w: i32,
    has_bias: u32,
    accumulate: u32, // 1 if the result is added to what stands in y
    chunk_rows: u32, // backward_weight: image rows (n, oy) of a chunk
    block_rows: u32, // backward_weight: image rows between two additions to the partial sum
    first_chunk: u32, // backward_weight: chunks before this launch's
    turned: u32,      // both gradients: 1 if these are backward_input's sizes, of which forward's are the adjoint
    sums_x: u32,      // backward_weight: 1 if the row of the bias is the sum of x instead of gy
    split: u32,       // of a joined x: channels of its first part
    floor: f32,       // with a batch norm: what it normalises is 0 below this: 0 with a ReLU, the lowest f32 without
    inverse_count: f32, // with a batch norm behind it: 1 / its pixels, or 0 in eval mode
    sums_first: u32,  // of the sums by chunks of pixels that a workgroup leaves: chunks before this launch's
    sums_chunks: u32, // and those of all launches
}

/// The source row or column of output position o and kernel position k, or -1.
fn source(o: u32, k: u32, pad: i32, extent: u32) -> i32 {
    let scaled = i32(o * params.multiply + k) - pad;
    // Right for sides up to 2^20, which the host checks; a division of whole numbers takes twenty instructions.
    let divided = i32(floor((f32(scaled) + 0.5) / f32(params.divide)));
    let inside = scaled >= 0 && divided * i32(params.divide) == scaled && divided < i32(extent);
    return select(-1, divided, inside);
}

/// Rows of weights (ky, kx, ci), without that of the bias.
fn weight_rows() -> u32 { return params.kernel_h * params.kernel_w * params.in_c; }

/// Rows of weights per invocation of the weight gradient by tiles; columns are two vectors of four.
const TILE_R: u32 = 8u;
