// What lib/conv2d_weight asks about gy, where it is taken as it stands.

fn gy_norm(quad: u32, quads: u32) -> u32 { return quad; }
fn gy_of(none: u32, v: vec4<f32>) -> vec4<f32> { return v; }
