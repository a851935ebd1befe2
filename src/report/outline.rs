//! The outline of a mask as an SVG path along the edges of its pixels.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Right, down, left, up: a pixel's sides in clockwise order.
const STEPS: [(isize, isize); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];

/// The closed lines around the pixels of `mask` `[height, width]` that are not 0, in units of pixels; empty for an
/// empty mask. Outer lines run clockwise and holes the other way, so the path can be filled too.
pub(super) fn outline(mask: &[u8], height: usize, width: usize) -> String {
    let inside = |x: isize, y: isize| {
        x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height && mask[y as usize * width + x as usize] != 0
    };
    // Sides between inside and outside, by the corner they start at.
    let mut sides: BTreeMap<(isize, isize), Vec<usize>> = BTreeMap::new();
    for y in 0..height as isize {
        for x in (0..width as isize).filter(|&x| inside(x, y)) {
            let corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)];
            let beyond = [(x, y - 1), (x + 1, y), (x, y + 1), (x - 1, y)];
            for (direction, (corner, (x, y))) in corners.into_iter().zip(beyond).enumerate() {
                if !inside(x, y) {
                    sides.entry(corner).or_default().push(direction);
                }
            }
        }
    }
    let mut path = String::new();
    while let Some((&start, directions)) = sides.iter().next() {
        let first = directions[0];
        let (mut at, mut direction, mut length) = (start, first, 0);
        let _ = write!(path, "M{} {}", start.0, start.1);
        // As many sides arrive at a corner as leave it, so a walk ends only where it began.
        while let Some(directions) = sides.get_mut(&at) {
            // Where two pixels touch at a corner, turn right and stay with the same pixel.
            let wanted = [(direction + 1) % 4, direction, (direction + 3) % 4];
            let found = wanted.iter().find_map(|wanted| directions.iter().position(|left| left == wanted)).unwrap_or(0);
            let next = directions.swap_remove(found);
            if directions.is_empty() {
                sides.remove(&at);
            }
            if next != direction {
                write_side(&mut path, direction, length);
                (direction, length) = (next, 0);
            }
            at = (at.0 + STEPS[next].0, at.1 + STEPS[next].1);
            length += 1;
            if at == start && !sides.get(&at).is_some_and(|left| left.contains(&((direction + 1) % 4))) {
                break;
            }
        }
        write_side(&mut path, direction, length);
        path.push('z');
    }
    path
}

fn write_side(path: &mut String, direction: usize, length: isize) {
    if length > 0 {
        let axis = if direction.is_multiple_of(2) { 'h' } else { 'v' };
        let sign = if direction < 2 { length } else { -length };
        let _ = write!(path, "{axis}{sign}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Area inside of a path by the shoelace formula, and the number of its closed lines.
    fn area(path: &str) -> (isize, usize) {
        let (mut twice, mut lines) = (0, 0);
        for line in path.split('M').filter(|line| !line.is_empty()) {
            assert!(line.ends_with('z'), "{line}");
            let line = line.trim_end_matches('z');
            let start = line.find(['h', 'v']).unwrap_or(line.len());
            let corner: Vec<isize> = line[..start].split(' ').filter_map(|number| number.parse().ok()).collect();
            let (mut x, mut y) = (corner[0], corner[1]);
            let mut rest = &line[start..];
            while !rest.is_empty() {
                let end = rest[1..].find(['h', 'v']).map_or(rest.len(), |end| end + 1);
                let length: isize = rest[1..end].parse().unwrap_or(0);
                let (next_x, next_y) = if rest.starts_with('h') { (x + length, y) } else { (x, y + length) };
                twice += x * next_y - next_x * y;
                (x, y, rest) = (next_x, next_y, &rest[end..]);
            }
            assert_eq!((x, y), (corner[0], corner[1]), "{line} is not closed");
            lines += 1;
        }
        (twice / 2, lines)
    }

    #[test]
    fn simple_shapes() {
        assert_eq!(outline(&[0; 6], 2, 3), "");
        assert_eq!(outline(&[0, 1, 1, 0, 0, 0], 2, 3), "M1 0h2v1h-2v-1z");
        // A ring: its hole is taken off. Two pixels that touch at a corner are two lines.
        assert_eq!(area(&outline(&[1, 1, 1, 1, 0, 1, 1, 1, 1], 3, 3)), (8, 2));
        assert_eq!(area(&outline(&[1, 0, 0, 1], 2, 2)), (2, 2));
        assert_eq!(area(&outline(&[0, 1, 1, 0], 2, 2)), (2, 2));
    }

    #[test]
    fn any_mask_keeps_its_area() {
        let mut state = 7u32;
        for (height, width) in [(1, 1), (1, 9), (6, 7), (16, 16), (31, 5)] {
            for share in [60, 128, 220] {
                let mask: Vec<u8> = (0..height * width)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        u8::from(state >> 24 < share)
                    })
                    .collect();
                let pixels = mask.iter().filter(|pixel| **pixel != 0).count() as isize;
                assert_eq!(area(&outline(&mask, height, width)).0, pixels, "{height}x{width}");
            }
        }
    }
}
