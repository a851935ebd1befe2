// What lib/conv2d_weight asks about x, where the including file has x itself as x4.

fn x_quad(pixel: u32, quads: u32, quad: u32) -> vec4<f32> { return vec4<f32>(x4[pixel * quads + quad]); }
fn x_norm(quad: u32, quads: u32) -> u32 { return quad; }
fn x_of(none: u32, v: vec4<f32>) -> vec4<f32> { return v; }
