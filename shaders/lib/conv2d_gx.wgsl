// Where both gradients put that of x: it has no bias, and may be added to what stands there.
//
// The including file has accumulate and out_c in its Params, and the gradient as y4.

fn store(row: u32, col4: u32, value: vec4<f32>) {
    let at = pixel_of(row) * (params.out_c / 4u) + col4;
    var result = value;
    if params.accumulate == 1u { result += vec4<f32>(y4[at]); }
    y4[at] = Element4(result);
}
