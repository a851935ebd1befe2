//! U-Nets that others published under other names, brought to ours. Recognised by their names; every renaming keeps the
//! function, with the network built without convolution biases (`conv_bias = false`).
//!
//! | theirs | ours |
//! | --- | --- |
//! | mateuszbuda/brain-segmentation-pytorch: `encoderK.encKconvJ`, `.encKnormJ` | `eK.conv.convJ`, `.bnJ` |
//! | `bottleneck.bottleneckconvJ`, `normJ`; `upconvK`; `decoderK.decKconvJ`, `normJ`; `conv` | `b.convJ`, `bnJ`; `d(5-K).up`; `d(5-K).conv.convJ`, `bnJ`; `outputs` |
//! | milesial/Pytorch-UNet: `inc.double_conv.{0,1,3,4}`, `downK.maxpool_conv.1.double_conv.*` | `e1.conv.{conv1,bn1,conv2,bn2}`, `e(K+1).conv.*`, of K = 4 `b.*` |
//! | `upK.up`, `upK.conv.double_conv.*`, `outc.conv` | `dK.up`, `dK.conv.*`, `outputs` |
//!
//! milesial concatenates [skip, up] where we have [up, skip]: the two halves of the input channels of `dK.conv.conv1`
//! change places.

use super::state_dict::{Array, StateDict};
use crate::{Error, Result};

/// Renames the tensors of a published network that has other names than ours, and notes it. Leaves others as they are.
///
/// # Errors
/// [`Error::Weights`] for a published network that computes something else than ours.
pub(super) fn rename(dict: &mut StateDict) -> Result<()> {
    let (of, ours): (&str, fn(&str) -> Option<String>) = if dict.get("encoder1.enc1conv1.weight").is_some() {
        ("mateuszbuda/brain-segmentation-pytorch", buda)
    } else if dict.get("inc.double_conv.0.weight").is_some() {
        if dict.get("up1.up.weight").is_none() {
            let message = "these are the weights of milesial's U-Net with bilinear=True, which is another network; \
                           only bilinear=False is known";
            return Err(Error::weights(&dict.path, message));
        }
        ("milesial/Pytorch-UNet", milesial)
    } else {
        return Ok(());
    };
    for (name, array) in &mut dict.tensors {
        // What has no counterpart keeps its name, and is reported as unexpected.
        if let Some(ours) = ours(name) {
            *name = ours;
            if of.starts_with("milesial") && name.starts_with('d') && name.ends_with(".conv.conv1.weight") {
                swap_halves(array);
            }
        }
    }
    dict.notes.push(format!("the names are those of {of} and are brought to ours"));
    Ok(())
}

/// The digit after a prefix, and what follows it.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(u8, &'a str)> {
    let rest = name.strip_prefix(prefix)?;
    let digit = rest.bytes().next().filter(u8::is_ascii_digit)?;
    Some((digit - b'0', &rest[1..]))
}

/// `conv1.weight` -> the same; `norm1.weight` -> `bn1.weight`.
fn layer(name: &str) -> Option<String> {
    match name.strip_prefix("norm") {
        Some(rest) => Some(format!("bn{rest}")),
        None => name.starts_with("conv").then(|| name.to_owned()),
    }
}

fn buda(name: &str) -> Option<String> {
    if let Some((k, rest)) = numbered(name, "encoder") {
        return Some(format!("e{k}.conv.{}", layer(rest.strip_prefix(&format!(".enc{k}"))?)?));
    }
    if let Some((k @ 1..=4, rest)) = numbered(name, "decoder") {
        return Some(format!("d{}.conv.{}", 5 - k, layer(rest.strip_prefix(&format!(".dec{k}"))?)?));
    }
    if let Some((k @ 1..=4, rest)) = numbered(name, "upconv") {
        return Some(format!("d{}.up{rest}", 5 - k));
    }
    if let Some(rest) = name.strip_prefix("bottleneck.bottleneck") {
        return Some(format!("b.{}", layer(rest)?));
    }
    Some(format!("outputs.{}", name.strip_prefix("conv.")?))
}

fn milesial(name: &str) -> Option<String> {
    // double_conv is a Sequential: convolution, norm, ReLU, convolution, norm, ReLU.
    let layer = |rest: &str| {
        let (at, rest) = numbered(rest, "double_conv.")?;
        let layer = ["conv1", "bn1", "", "conv2", "bn2"].get(usize::from(at)).filter(|layer| !layer.is_empty())?;
        Some(format!("{layer}{rest}"))
    };
    if let Some(rest) = name.strip_prefix("inc.") {
        return Some(format!("e1.conv.{}", layer(rest)?));
    }
    if let Some((k, rest)) = numbered(name, "down") {
        let layer = layer(rest.strip_prefix(".maxpool_conv.1.")?)?;
        return Some(if k == 4 { format!("b.{layer}") } else { format!("e{}.conv.{layer}", k + 1) });
    }
    if let Some((k, rest)) = numbered(name, "up") {
        return Some(match rest.strip_prefix(".conv.") {
            Some(rest) => format!("d{k}.conv.{}", layer(rest)?),
            None => format!("d{k}{rest}"),
        });
    }
    Some(format!("outputs.{}", name.strip_prefix("outc.conv.")?))
}

/// Swaps the first and second half of the input channels of a convolution weight `[out, in, kh, kw]`.
fn swap_halves(array: &mut Array) {
    let [_, input, kh, kw] = array.shape[..] else { return };
    for out in array.values.chunks_exact_mut((input * kh * kw).max(1)) {
        out.rotate_left(input / 2 * kh * kw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_buda() {
        for (theirs, ours) in [
            ("encoder1.enc1conv1.weight", "e1.conv.conv1.weight"),
            ("encoder4.enc4norm2.running_var", "e4.conv.bn2.running_var"),
            ("bottleneck.bottleneckconv2.weight", "b.conv2.weight"),
            ("bottleneck.bottlenecknorm1.bias", "b.bn1.bias"),
            ("upconv4.weight", "d1.up.weight"),
            ("upconv1.bias", "d4.up.bias"),
            ("decoder3.dec3conv1.weight", "d2.conv.conv1.weight"),
            ("conv.bias", "outputs.bias"),
        ] {
            assert_eq!(buda(theirs).as_deref(), Some(ours));
        }
        assert_eq!(buda("decoder9.dec9conv1.weight"), None);
        assert_eq!(buda("head.weight"), None);
    }

    #[test]
    fn names_of_milesial() {
        for (theirs, ours) in [
            ("inc.double_conv.0.weight", "e1.conv.conv1.weight"),
            ("inc.double_conv.4.running_mean", "e1.conv.bn2.running_mean"),
            ("down1.maxpool_conv.1.double_conv.3.weight", "e2.conv.conv2.weight"),
            ("down4.maxpool_conv.1.double_conv.1.bias", "b.bn1.bias"),
            ("up1.up.weight", "d1.up.weight"),
            ("up4.conv.double_conv.0.weight", "d4.conv.conv1.weight"),
            ("outc.conv.weight", "outputs.weight"),
        ] {
            assert_eq!(milesial(theirs).as_deref(), Some(ours));
        }
        assert_eq!(milesial("inc.double_conv.2.weight"), None);
    }

    #[test]
    fn halves_change_places() {
        let mut array = Array { shape: vec![2, 4, 1, 2], values: (0..16).map(|v| v as f32).collect() };
        swap_halves(&mut array);
        let expected = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11].map(|v| v as f32);
        assert_eq!(array.values, expected);
    }
}
