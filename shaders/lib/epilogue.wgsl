// What a convolution does with a result before it stores it: adds the bias, and what stands there if it accumulates.
//
// The including file has has_bias, accumulate and out_c in its Params, and the tensors bias4 and y4.

/// `at` counts the vectors of y, co4 those of its channels.
fn store_at(at: u32, co4: u32, value: vec4<f32>) {
    var result = value;
    if params.has_bias == 1u { result += bias4[co4]; }
    if params.accumulate == 1u { result += vec4<f32>(y4[at]); }
    y4[at] = Element4(result);
}
