// The weight gradient of shifted_linear.wgsl through workgroup memory. A k is a row.
// @include linear_blocks
// @include shifted_quad

fn row_source(p: Params, r: u32) -> Quad { return quad_of(r); }
fn row_quad(p: Params, quad: Quad, row: u32) -> vec4<f32> { return moved4(row, position(row), quad); }
fn sums_bias(chunk: u32) -> bool { return true; }
