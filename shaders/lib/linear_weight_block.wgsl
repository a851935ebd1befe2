// The weight gradient of linear.wgsl through workgroup memory. A k is a row.
// @include linear_blocks

fn row_source(p: Params, r: u32) -> u32 { return r / 4u; }
fn row_quad(p: Params, i4: u32, row: u32) -> vec4<f32> { return vec4<f32>(x4[row * (p.inputs / 4u) + i4]); }
fn sums_bias(chunk: u32) -> bool { return chunk >= params.bias_from && chunk < params.bias_to; }
