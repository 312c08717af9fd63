"""BiSeNet and DeepLabV2 in PyTorch, with the names of `pretrained.to_torch`."""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from tufl_jax.models.deeplab import DILATIONS, STAGES

NORMALIZATION = [[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]]


class ConvBNAct(nn.Module):
    """Convolution, batch norm, leaky ReLU."""

    def __init__(self, inputs, features, size, stride=1):
        super().__init__()
        self.conv = conv(inputs, features, size, stride)
        self.bn = nn.BatchNorm2d(features)

    def forward(self, x):
        return leaky(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """The residual block of ResNet-18."""

    def __init__(self, inputs, features, stride):
        super().__init__()
        self.conv1 = conv(inputs, features, 3, stride)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = conv(features, features, 3)
        self.bn2 = nn.BatchNorm2d(features)
        self.projects = stride > 1 or inputs != features
        if self.projects:
            self.downsample_conv = conv(inputs, features, 1, stride)
            self.downsample_bn = nn.BatchNorm2d(features)

    def forward(self, x):
        y = self.bn2(self.conv2(leaky(self.bn1(self.conv1(x)))))
        if self.projects:
            x = self.downsample_bn(self.downsample_conv(x))
        return F.relu(x + y, inplace=True)


class ResNet18(nn.Module):
    """Features at 1/8, 1/16 and 1/32."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = conv(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage in range(4):
            features = width * 2**stage
            blocks = (
                BasicBlock(inputs, features, 2 if stage else 1),
                BasicBlock(features, features, 1),
            )
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = features

    def forward(self, x):
        x = F.max_pool2d(leaky(self.bn1(self.conv1(x))), 3, 2, 1)
        feat8 = self.layer2(self.layer1(x))
        feat16 = self.layer3(feat8)
        return feat8, feat16, self.layer4(feat16)


class AttentionRefinement(nn.Module):
    """A ConvBNAct times the sigmoid of a norm of a 1x1 of its mean."""

    def __init__(self, inputs, features):
        super().__init__()
        self.conv = ConvBNAct(inputs, features, 3)
        self.conv_atten = conv(features, features, 1)
        self.bn_atten = nn.BatchNorm2d(features)

    def forward(self, x):
        x = self.conv(x)
        attention = self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(attention)


class ContextPath(nn.Module):
    """ResNet-18 with attention refinement: maps at 1/8 and 1/16."""

    def __init__(self, width):
        super().__init__()
        self.resnet = ResNet18(width)
        self.conv_avg = ConvBNAct(8 * width, 2 * width, 1)
        self.arm32 = AttentionRefinement(8 * width, 2 * width)
        self.conv_head32 = ConvBNAct(2 * width, 2 * width, 3)
        self.arm16 = AttentionRefinement(4 * width, 2 * width)
        self.conv_head16 = ConvBNAct(2 * width, 2 * width, 3)

    def forward(self, x):
        feat8, feat16, feat32 = self.resnet(x)
        context = self.conv_avg(feat32.mean((2, 3), keepdim=True))
        x = F.interpolate(self.arm32(feat32) + context, feat16.shape[2:])
        cp16 = self.conv_head32(x)
        x = F.interpolate(self.arm16(feat16) + cp16, feat8.shape[2:])
        return self.conv_head16(x), cp16


class SpatialPath(nn.Module):
    """Three strided ConvBNActs and a 1x1."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = ConvBNAct(3, width, 7, 2)
        self.conv2 = ConvBNAct(width, width, 3, 2)
        self.conv3 = ConvBNAct(width, width, 3, 2)
        self.conv_out = ConvBNAct(width, 2 * width, 1)

    def forward(self, x):
        return self.conv_out(self.conv3(self.conv2(self.conv1(x))))


class FeatureFusion(nn.Module):
    """A ConvBNAct of both paths, plus itself times its squeeze-excite attention."""

    def __init__(self, features):
        super().__init__()
        self.convblk = ConvBNAct(features, features, 1)
        self.conv1 = conv(features, features // 4, 1)
        self.conv2 = conv(features // 4, features, 1)

    def forward(self, x):
        x = self.convblk(x)
        attention = self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(attention) + x


class Head(nn.Module):
    """A ConvBNAct and a 1x1 to the classes."""

    def __init__(self, inputs, features, classes):
        super().__init__()
        self.conv = ConvBNAct(inputs, features, 3)
        self.conv_out = conv(features, classes, 1)

    def forward(self, x):
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """Logits of the main head and, in training, of the two others."""

    def __init__(self, classes, width):
        super().__init__()
        self.cp = ContextPath(width)
        self.sp = SpatialPath(width)
        self.ffm = FeatureFusion(4 * width)
        self.conv_out = Head(4 * width, 4 * width, classes)
        self.conv_out16 = Head(2 * width, width, classes)
        self.conv_out32 = Head(2 * width, width, classes)

    def forward(self, x):
        cp8, cp16 = self.cp(x)
        heads = [self.conv_out(self.ffm(torch.cat([self.sp(x), cp8], 1)))]
        if self.training:
            heads += [self.conv_out16(cp8), self.conv_out32(cp16)]
        return [enlarge(y, x) for y in heads]


class Bottleneck(nn.Module):
    """The residual block of ResNet-101, strided in its first 1x1."""

    def __init__(self, inputs, features, stride, dilation, project):
        super().__init__()
        self.conv1 = conv(inputs, features, 1, stride)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = conv(features, features, 3, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(features)
        self.conv3 = conv(features, 4 * features, 1)
        self.bn3 = nn.BatchNorm2d(4 * features)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                conv(inputs, 4 * features, 1, stride), nn.BatchNorm2d(4 * features)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample(x)
        return F.relu(x + y, inplace=True)


class SqueezeExcite(nn.Module):
    """x times the sigmoid of a two-layer perceptron of its mean."""

    def __init__(self, features):
        super().__init__()
        self.se = nn.Sequential(
            nn.Linear(features, features // 16),
            nn.ReLU(),
            nn.Linear(features // 16, features),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.se(x.mean((2, 3)))[:, :, None, None]


class ProDAHead(nn.Module):
    """Five branches, squeeze-excite, bottleneck, channel dropout, classifier."""

    def __init__(self, inputs, features, classes, dropout):
        super().__init__()
        norm = functools.partial(nn.GroupNorm, math.gcd(32, features))
        self.conv2d_list = nn.ModuleList(
            nn.Sequential(
                conv(inputs, features, 3 if i else 1, dilation=dilation, bias=True),
                norm(features),
                nn.ReLU(inplace=True),
            )
            for i, dilation in enumerate((1, *DILATIONS))
        )
        self.bottleneck = nn.Sequential(
            SqueezeExcite(5 * features),
            conv(5 * features, features, 3, bias=True),
            norm(features),
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), conv(features, classes, 1))

    def forward(self, x):
        y = torch.cat([branch(x) for branch in self.conv2d_list], 1)
        return self.head(self.bottleneck(y))


class DeepLabV2(nn.Module):
    """DeepLabV2-ResNet101 with the head of ProDA: the paper's second network."""

    def __init__(self, classes, width, blocks=(3, 4, 23, 3), dropout=0.1):
        super().__init__()
        self.conv1 = conv(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, (stride, dilation) in enumerate(STAGES):
            features, layers = width * 2**stage, []
            for i in range(blocks[stage]):
                first = (stride, dilation, True) if i == 0 else (1, dilation, False)
                layers.append(Bottleneck(inputs, features, *first))
                inputs = 4 * features
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.layer5 = ProDAHead(inputs, 4 * width, classes, dropout)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.max_pool2d(y, 3, 2, 1, ceil_mode=True)
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        return [enlarge(self.layer5(y), x)]


NETWORKS = {"bisenet": BiSeNet, "deeplabv2": DeepLabV2}


def conv(inputs, features, size, stride=1, dilation=1, bias=False):
    """A convolution padded on both sides."""
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, features, size, stride, padding, dilation, bias=bias)


def leaky(x):
    """The activation of this BiSeNet."""
    return F.leaky_relu(x, 0.01, inplace=True)


def enlarge(logits, images):
    """float32 logits at the size of the images, corners aligned."""
    return F.interpolate(
        logits.float(), images.shape[2:], mode="bilinear", align_corners=True
    )


def normalize(images):
    """Network input from RGB f32[B, 3, H, W] in 0..255."""
    mean, deviation = images.new_tensor(NORMALIZATION)[:, :, None, None]
    return (images - mean) / deviation


def load(network, arrays):
    """Gives the network the arrays of `pretrained.to_torch`."""
    state = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    left = [x for x in missing if not x.endswith("num_batches_tracked")]
    if left or unexpected:
        raise ValueError(f"not the same network: {left[:3]} {unexpected[:3]}")
    return network
