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

fn normalised4(norm: Norm4, x: vec4<f32>) -> vec4<f32> {
    let v = (x - norm.center) * norm.scale + norm.shift;
    return select(v, vec4(0.0), v < vec4(params.floor));
}
