// A convolution and its weight gradient, one element at a time.
//
// The including file takes in lib/conv2d_sizes; has weight, bias and y for the first, gy and partial for the second; and says
// what it reads of x: load_a(at, ci), where `at` is channel 0 of a pixel.

/// One element of y.
fn gather_element(at: u32) {
    if at >= params.batch * params.out_h * params.out_w * params.out_c { return; }
    let co = at % params.out_c;
    let pixel = at / params.out_c; // (n, oy, ox)
    let ox = pixel % params.out_w;
    let row = pixel / params.out_w; // (n, oy)
    let n = row / params.out_h;
    let oy = row % params.out_h;
    var sum = 0.0;
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        let iy = source(oy, ky, params.pad_h, params.in_h);
        for (var kx = 0u; kx < params.kernel_w; kx++) {
            let ix = source(ox, kx, params.pad_w, params.in_w);
            if iy >= 0 && ix >= 0 {
                let x_at = ((n * params.in_h + u32(iy)) * params.in_w + u32(ix)) * params.in_c;
                let w_at = (ky * params.kernel_w + kx) * params.in_c * params.out_c + co;
                // One kernel position at a time: a blocked sum.
                var part = 0.0;
                for (var ci = 0u; ci < params.in_c; ci++) { part += load_a(x_at, ci) * weight[w_at + ci * params.out_c]; }
                sum += part;
            }
        }
    }
    if params.has_bias == 1u { sum += bias[co]; }
    if params.accumulate == 1u { sum += f32(y[at]); }
    y[at] = Element(sum);
}

/// `at` is (chunk, r, co).
fn weight_element(at: u32) {
    let co = at % params.out_c;
    let r = (at / params.out_c) % (weight_rows() + 1u);
    let chunk = at / (params.out_c * (weight_rows() + 1u));
    let image_rows = params.batch * params.out_h;
    let first = chunk * params.chunk_rows;
    if first >= image_rows { return; }
    let is_bias = r == weight_rows();
    let ci = r % params.in_c;
    let kx = (r / params.in_c) % params.kernel_w;
    let ky = r / (params.in_c * params.kernel_w);
    var sum = 0.0;
    for (var row = first; row < min(first + params.chunk_rows, image_rows); row++) {
        let n = row / params.out_h;
        let iy = source(row % params.out_h, ky, params.pad_h, params.in_h);
        var part = 0.0; // one image row at a time: a blocked sum
        for (var ox = 0u; ox < params.out_w; ox++) {
            let ix = source(ox, kx, params.pad_w, params.in_w);
            let g = f32(gy[(row * params.out_w + ox) * params.out_c + co]);
            if is_bias {
                part += g;
            } else if iy >= 0 && ix >= 0 {
                part += load_a(((n * params.in_h + u32(iy)) * params.in_w + u32(ix)) * params.in_c, ci) * g;
            }
        }
        sum += part;
    }
    partial[at + params.first_chunk * (weight_rows() + 1u) * params.out_c] = sum;
}
