// As lib/batch_norm_table, four channels at a time; the including file has the table as table4.

/// Center, scale and shift of four channels.
struct Norm4 {
    center: vec4<f32>,
    scale: vec4<f32>,
    shift: vec4<f32>,
}

/// Those of one of `quads` vectors of channels.
fn norm4(quad: u32, quads: u32) -> Norm4 {
    return Norm4(table4[quad], table4[quads + quad], table4[2u * quads + quad]);
}

/// What of a gradient comes back through the ReLU to an x at this distance from the center.
fn gated4(norm: Norm4, gy: vec4<f32>, off: vec4<f32>) -> vec4<f32> {
    return select(gy, vec4(0.0), off * norm.scale + norm.shift <= vec4(params.floor));
}

fn normalised4(norm: Norm4, x: vec4<f32>) -> vec4<f32> {
    let v = (x - norm.center) * norm.scale + norm.shift;
    return select(v, vec4(0.0), v < vec4(params.floor));
}
