// What lib/conv2d_weight asks about x, where it is two tensors side by side: the including file has them as a4 and b4, and the
// channels of the first as split in its Params.

fn x_quad(pixel: u32, quads: u32, quad: u32) -> vec4<f32> {
    let split = params.split / 4u;
    if quad < split { return vec4<f32>(a4[pixel * split + quad]); }
    return vec4<f32>(b4[pixel * (quads - split) + quad - split]);
}
fn x_norm(quad: u32, quads: u32) -> u32 { return quad; }
fn x_of(none: u32, v: vec4<f32>) -> vec4<f32> { return v; }
