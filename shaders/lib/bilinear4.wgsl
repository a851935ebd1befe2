// Bilinear upsampling by 2 and its gradient, four channels at a time, by either rule of lib/bilinear.
//
// The including file takes in lib/bilinear, has x4, and says
//   passed4(n, oy, ox, c)   what of the gradient at an output comes through to u; c counts vectors of channels

/// u at output (n, oy, ox).
fn sample4(n: u32, oy: u32, ox: u32, c: u32) -> vec4<f32> {
    return between4(n, position(oy, params.in_h), position(ox, params.in_w), c);
}

/// u at a row and a column.
fn between4(n: u32, v: Position, h: Position, c: u32) -> vec4<f32> {
    let quads = params.channels / 4u;
    let top = (n * params.in_h + v.low) * params.in_w;
    let bottom = (n * params.in_h + v.high) * params.in_w;
    let upper = mix(vec4<f32>(x4[(top + h.low) * quads + c]), vec4<f32>(x4[(top + h.high) * quads + c]), h.fraction);
    let lower = mix(vec4<f32>(x4[(bottom + h.low) * quads + c]), vec4<f32>(x4[(bottom + h.high) * quads + c]), h.fraction);
    return mix(upper, lower, v.fraction);
}

/// The gradient of u gathered at input (n, iy, ix).
fn gathered4(n: u32, iy: u32, ix: u32, c: u32) -> vec4<f32> {
    let rows = readers(iy, params.in_h);
    let columns = readers(ix, params.in_w);
    var total = vec4(0.0);
    for (var oy = rows.x; oy < rows.y; oy++) {
        var sum = vec4(0.0);
        for (var ox = columns.x; ox < columns.y; ox++) {
            sum += weight_of(position(ox, params.in_w), ix) * passed4(n, oy, ox, c);
        }
        total += weight_of(position(oy, params.in_h), iy) * sum;
    }
    return total;
}
