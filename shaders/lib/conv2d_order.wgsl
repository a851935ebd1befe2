// In which order the tile engine takes the pixels of a gather, and which kernel positions (taps) those of a block see.
//
// The input gradient of a strided convolution sees a tap at every second row and column only (stride 2):
//
//     a b a b a b      With a 3x3 kernel one of the four letters sees four taps, two see two, and one sees one: 2.25 on average.
//     c d c d c d      A block in which letters are mixed would multiply all nine, mostly with zeros. So the pixels of one
//     a b a b a b      letter, of all images, come one after the other: a a a ..., b b b ..., c c c ..., d d d ...
//
// Else rows of the engine are pixels as they stand.
//
// The including file takes in lib/conv2d_sizes.

/// The positions of an axis that leave the same remainder; smaller remainders come before.
struct Class {
    remainder: u32,
    before: u32, // positions
    count: u32,
}

/// The class of a position, counted in the engine's order.
fn class_of(position: u32, extent: u32) -> Class {
    let count = extent / params.divide;
    let larger = extent % params.divide; // as many classes have one more
    let of_larger = larger * (count + 1u);
    if position < of_larger {
        let remainder = position / (count + 1u);
        return Class(remainder, remainder * (count + 1u), count + 1u);
    }
    let further = (position - of_larger) / max(count, 1u);
    return Class(larger + further, of_larger + further * count, count);
}

/// Image, row and column of a row of the engine.
fn place_of(row: u32) -> vec3<u32> {
    if params.divide == 1u {
        let line = row / params.out_w;
        return vec3(line / params.out_h, line % params.out_h, row % params.out_w);
    }
    let rows = class_of(row / (params.batch * params.out_w), params.out_h);
    let of_rows = row - rows.before * params.batch * params.out_w;
    let columns = class_of(of_rows / (params.batch * rows.count), params.out_w);
    let at = of_rows - columns.before * params.batch * rows.count;
    let line = at / columns.count;
    return vec3(
        line / rows.count,
        line % rows.count * params.divide + rows.remainder,
        at % columns.count * params.divide + columns.remainder,
    );
}

/// The pixel that is a row of the engine.
fn pixel_of(row: u32) -> u32 {
    if params.divide == 1u { return row; }
    let place = place_of(row);
    return (place.x * params.out_h + place.y) * params.out_w + place.z;
}

/// Taps that are `apart` from each other.
struct Taps {
    count: u32,
    first: u32,
    across: u32,
    apart: u32,
}

/// The taps that the rows from first_row to last_row see: all, unless their pixels are of one letter.
fn taps_of(first_row: u32, last_row: u32) -> Taps {
    let all = Taps(params.kernel_h * params.kernel_w, 0u, params.kernel_w, 1u);
    if params.divide == 1u { return all; }
    let first = place_of(first_row).yz;
    if any(first % params.divide != place_of(last_row).yz % params.divide) { return all; }
    // o * multiply + k - pad divides.
    let kernel = vec2(params.kernel_h, params.kernel_w);
    let apart = i32(params.divide);
    let behind = (vec2(params.pad_h, params.pad_w) - vec2<i32>(first * params.multiply)) % apart;
    let k = min(vec2<u32>((behind + apart) % apart), kernel);
    let seen = (kernel - k + params.divide - 1u) / params.divide;
    return Taps(seen.x * seen.y, select(0u, k.x * params.kernel_w + k.y, seen.x * seen.y > 0u), max(seen.y, 1u), params.divide);
}

fn nth_tap(taps: Taps, n: u32) -> u32 {
    return taps.first + (n / taps.across * params.kernel_w + n % taps.across) * taps.apart;
}
