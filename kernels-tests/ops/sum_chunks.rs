//! Cases of the second stage of weight gradients: one table and many, few chunks and many, gradients that share a buffer
//! and that do not, tables that do and do not, columns that nobody wants, more parts and more bytes than a launch takes.

use shadegrad::ops::{self, sum_chunks::ChunkSums};

use super::{Case, SUMS, doubles, numbers};

const OP: &str = "sum_chunks";

pub fn cases() -> Vec<Case> {
    let few = [[1, 1, 1], [1, 64, 7], [2, 65, 1], [3, 5000, 40], [5, 200, 16]];
    let many = [[33, 17, 3], [128, 128, 128], [1000, 48, 5]];
    let mut cases: Vec<Case> = few.into_iter().chain(many).map(case).collect();
    cases.extend([1, 5, 30, 100].map(together));
    cases
}

/// The sums of columns `first .. first + count` of a table.
fn sums(table: &[f32], width: usize, first: usize, count: usize) -> Vec<f64> {
    (first..first + count).map(|column| doubles(table).chunks(width).map(|row| row[column]).sum()).collect()
}

/// A weight and a bias, and three columns more.
fn case([chunks, weights, biases]: [usize; 3]) -> Case {
    Case::new(OP, format!("{chunks} chunks of {weights} weights and {biases} biases"), move |device, checks| {
        let width = weights + biases + 3;
        let values = numbers("table", chunks * width);
        let table = device.tensor(OP, [chunks, width], &values)?;
        let weight = device.tensor(OP, [weights], &vec![f32::NAN; weights])?;
        let bias = device.tensor(OP, [biases], &vec![f32::NAN; biases])?;
        ops::sum_chunks(&table, &[&weight, &bias])?;
        checks.compare("sums", "v1", &weight, &sums(&values, width, 0, weights), SUMS)?;
        checks.compare("sums", "v1", &bias, &sums(&values, width, weights, biases), SUMS)
    })
}

/// Several tables whose gradients are parts of one tensor, as those of a network are; numbers between them stay. One
/// table stands apart from the others.
fn together(layers: usize) -> Case {
    Case::new(OP, format!("{layers} tables together"), move |device, checks| {
        const PLACE: usize = 512;
        let all = device.tensor(OP, [layers * PLACE], &vec![7.0; layers * PLACE])?;
        let mut want = vec![7.0; layers * PLACE];
        let mut waiting = ChunkSums::default();
        for layer in 0..layers {
            let (chunks, weights, biases) = (1 + layer * 5 % 37, 60 + 13 * (layer % 30), layer % 4);
            let width = weights + biases;
            let values = numbers(&format!("table {layer}"), chunks * width);
            let at = |start: usize, len: usize| all.images(&(layer * PLACE + start..layer * PLACE + start + len));
            let mut places = vec![at(0, weights)];
            if biases > 0 {
                places.push(at(448, biases));
            }
            let table = match layer {
                2 => device.empty(OP, [chunks, width])?,
                _ => waiting.table(device, [chunks, width])?,
            };
            table.write(&values)?;
            waiting.add(&table, &places.iter().collect::<Vec<_>>())?;
            let found = sums(&values, width, 0, width);
            want[layer * PLACE..][..weights].copy_from_slice(&found[..weights]);
            if biases > 0 {
                want[layer * PLACE + 448..][..biases].copy_from_slice(&found[weights..]);
            }
        }
        waiting.launch()?;
        checks.compare("sums", "v1", &all, &want, SUMS)
    })
}
