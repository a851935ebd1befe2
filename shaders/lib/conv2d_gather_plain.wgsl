// A gather of numbers as they stand: what lib/conv2d_tile and lib/conv2d_element ask the including file, which has them as x,
// and as gathered4.

fn pixel_stride() -> u32 { return params.in_c; }
fn load_a(at: u32, ci: u32) -> f32 { return select(f32(x[at + ci]), 0.0, at == OUTSIDE); }
fn load_a4(at: u32, ci: u32) -> vec4<f32> {
    return select(vec4<f32>(gathered4[(select(at, 0u, at == OUTSIDE) + ci) / 4u]), vec4(0.0), at == OUTSIDE);
}
