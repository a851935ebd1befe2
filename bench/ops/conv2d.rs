//! The convolutions of UNeXt (batch 8 at 256x256), U-Net's 64 -> 64 at 128x128, a layer of its decoder,
//! and a strided shortcut of ResUNet.

use shadegrad::cpu::conv2d::Conv2dParams;
use shadegrad::ops;
use shadegrad::ops::Version;
use shadegrad::ops::conv2d::WeightKernel;

use super::BenchCase;

const OP: &str = "conv2d";

/// A layer: network and name, x, kernel, channels of y, stride, padding.
#[derive(Clone, Copy)]
struct Layer(&'static str, [usize; 4], usize, usize, usize, usize);

const LAYERS: &[Layer] = &[
    Layer("unext encoder1", [8, 256, 256, 3], 3, 16, 1, 1),
    Layer("unext encoder2", [8, 128, 128, 16], 3, 32, 1, 1),
    Layer("unext encoder3", [8, 64, 64, 32], 3, 128, 1, 1),
    Layer("unext patch_embed3", [8, 32, 32, 128], 3, 160, 2, 1),
    Layer("unext patch_embed4", [8, 16, 16, 160], 3, 256, 2, 1),
    Layer("unext decoder1", [8, 8, 8, 256], 3, 160, 1, 1),
    Layer("unext decoder2", [8, 16, 16, 160], 3, 128, 1, 1),
    Layer("unext decoder3", [8, 32, 32, 128], 3, 32, 1, 1),
    Layer("unext decoder4", [8, 64, 64, 32], 3, 16, 1, 1),
    Layer("unext decoder5", [8, 128, 128, 16], 3, 16, 1, 1),
    Layer("unext final", [8, 256, 256, 16], 1, 1, 1, 0),
    Layer("unet e1.conv2 at half size", [2, 128, 128, 64], 3, 64, 1, 1),
    Layer("unet d3.conv1", [1, 128, 128, 256], 3, 128, 1, 1),
    Layer("resunet r3.s, base 16", [8, 128, 128, 32], 1, 64, 2, 0),
];

pub fn cases() -> Vec<BenchCase> {
    LAYERS.iter().flat_map(|layer| layer.cases()).collect()
}

impl Layer {
    fn cases(self) -> Vec<BenchCase> {
        let Self(_, x, _, out, _, _) = self;
        let versions = |channels: usize| {
            let all = [Version::V1, Version::V2];
            all.into_iter().filter(move |version| *version == Version::V1 || channels.is_multiple_of(8))
        };
        let mut cases: Vec<_> = versions(out).map(|version| self.forward(version)).collect();
        // The gradient of the first layer's input, the images, is never computed.
        if x[3] > 3 {
            cases.extend(versions(x[3]).map(|version| self.backward_input(version)));
        }
        let kernels: &[WeightKernel] = match WeightKernel::select(x[3], out) {
            WeightKernel::V1 => &[WeightKernel::V1],
            WeightKernel::V2 => &[WeightKernel::V1, WeightKernel::V2],
            WeightKernel::V3 => &[WeightKernel::V1, WeightKernel::V2, WeightKernel::V3],
        };
        cases.extend(kernels.iter().map(|kernel| self.backward_weight(*kernel)));
        cases
    }

    fn params(self) -> Conv2dParams {
        let Self(_, x, kernel, out, stride, padding) = self;
        Conv2dParams::forward(x, [kernel, kernel, x[3], out], stride, padding, true)
    }

    fn weight(self) -> [usize; 4] {
        [self.2, self.2, self.1[3], self.3]
    }

    fn y(self) -> [usize; 4] {
        let p = self.params();
        [p.batch, p.out_h, p.out_w, p.out_c].map(|extent| extent as usize)
    }

    fn case(self, entry: &'static str, version: &'static str, prepare: Prepare) -> BenchCase {
        let Self(name, x, kernel, out, stride, _) = self;
        let elements = |shape: [usize; 4]| shape.iter().product::<usize>() as f64;
        BenchCase {
            op: OP,
            entry,
            version,
            case: format!("{name} {x:?} {kernel}x{kernel} s{stride} -> {out}"),
            flops: 2.0 * elements(self.y()) * elements(self.weight()) / out as f64,
            bytes: 4.0 * (elements(x) + elements(self.weight()) + elements(self.y())),
            prepare,
        }
    }

    fn forward(self, version: Version) -> BenchCase {
        let Self(_, x, _, out, stride, padding) = self;
        let prepare: Prepare = Box::new(move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", self.weight())?);
            let bias = device.zeros("bench", [out])?;
            Ok(Box::new(move || ops::conv2d::forward(&x, &weight, Some(&bias), stride, padding, version).map(drop)))
        });
        self.case("forward", version.name(), prepare)
    }

    fn backward_input(self, version: Version) -> BenchCase {
        let prepare: Prepare = Box::new(move |device| {
            let (gy, weight) = (device.zeros("bench", self.y())?, device.zeros("bench", self.weight())?);
            let gx = device.zeros("bench", self.1)?;
            Ok(Box::new(move || ops::conv2d::backward_input(&self.params(), &gy, &weight, &gx, version)))
        });
        self.case("backward_input", version.name(), prepare)
    }

    fn backward_weight(self, kernel: WeightKernel) -> BenchCase {
        let prepare: Prepare = Box::new(move |device| {
            let (x, gy) = (device.zeros("bench", self.1)?, device.zeros("bench", self.y())?);
            let (gw, gb) = (device.zeros("bench", self.weight())?, device.zeros("bench", [self.3])?);
            Ok(Box::new(move || ops::conv2d::backward_weight(&self.params(), &x, &gy, &gw, Some(&gb), kernel)))
        });
        self.case("backward_weight", kernel.name(), prepare)
    }
}

type Prepare = Box<dyn Fn(&shadegrad::Device) -> shadegrad::Result<super::Work>>;
