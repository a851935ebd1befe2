// GELU in its exact form, and its slope. P is the distribution function of the standard normal, p its density.
//
//   gelu(x) = x * P(x)        slope(x) = P(x) + x * p(x)
//
// WGSL has no erf, and 0.5 * (1 + erf(x / sqrt 2)) would lose every digit for negative x. So P(-t) for t >= 0 is
// taken as ratio(t) * bell(t), which is right to a few units in the last place over the whole range:
//   bell(t)  = exp(-t*t/2). Rounding t*t/2 would cost 80 units at t = 13, so the exponent is kept in two parts.
//   ratio(t) = P(-t) / bell(t), smooth and without underflow. (1 + t) * ratio(t) is a polynomial of degree 10 in
//              (t - 4) / (t + 4): the substitution of Shepherd & Laframboise, "Chebyshev approximation of
//              (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Math. Comp. 36 (1981). Coefficients: interpolated at
//              Chebyshev nodes for t in [0, 13.25] with 40 digits; with them as f32 the relative error is 1.8e-8.

// From here on bell(t) is below the normal range of f32 (and y too): it counts as 0.
const FAR: f32 = 13.19;
const DENSITY_AT_0: f32 = 0.3989422804; // 1 / sqrt(2 pi)

fn ratio(t: f32) -> f32 {
    let q = (t - 4.0) / (t + 4.0);
    var sum = -7.246592699e-5;
    sum = sum * q - 6.212748078e-5;
    sum = sum * q + 6.930735542e-4;
    sum = sum * q - 3.020833244e-4;
    sum = sum * q - 5.003933170e-3;
    sum = sum * q + 1.793969527e-2;
    sum = sum * q - 3.219744425e-2;
    sum = sum * q + 2.860003417e-2;
    sum = sum * q + 1.399961228e-2;
    sum = sum * q - 9.670346846e-2;
    sum = sum * q + 4.720532067e-1;
    return sum / (1.0 + t);
}

fn bell(t: f32) -> f32 {
    let coarse = floor(t * 128.0) * 0.0078125; // few bits: its square is exact
    let exponent = -0.5 * coarse * coarse;
    let rest = -0.5 * (t - coarse) * (t + coarse);
    // exp as in Cephes' expf: 2^n * exp(r), |r| <= ln(2) / 2; ln(2) in two parts, the first exact when multiplied by n.
    let n = round((exponent + rest) * 1.44269504);
    let r = (exponent - n * 0.693359375) + n * 2.12194440e-4 + rest;
    var sum = 1.9875691500e-4;
    sum = sum * r + 1.3981999507e-3;
    sum = sum * r + 8.3334519073e-3;
    sum = sum * r + 4.1665795894e-2;
    sum = sum * r + 1.6666665459e-1;
    sum = sum * r + 5.0000001201e-1;
    return (sum * r * r + r + 1.0) * bitcast<f32>(u32(i32(n) + 127) << 23u);
}

fn gelu(x: f32) -> f32 {
    let t = min(abs(x), FAR);
    let height = select(0.0, bell(t), abs(x) < FAR);
    let below = ratio(t);
    // x first, or small P would leave the normal range before y does.
    return select(x * (1.0 - below * height), x * below * height, x < 0.0);
}

fn slope(x: f32) -> f32 {
    let t = min(abs(x), FAR);
    let height = select(0.0, bell(t), abs(x) < FAR);
    let below = (ratio(t) - t * DENSITY_AT_0) * height; // slope at -t; the slopes at t and -t add up to 1
    return select(1.0 - below, below, x < 0.0);
}

fn gelu4(x: vec4<f32>) -> vec4<f32> {
    return vec4(gelu(x.x), gelu(x.y), gelu(x.z), gelu(x.w));
}

fn slope4(x: vec4<f32>) -> vec4<f32> {
    return vec4(slope(x.x), slope(x.y), slope(x.z), slope(x.w));
}
