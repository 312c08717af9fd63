"""The losses, class thresholds and mixing of the paper in PyTorch."""

import math

import torch
from torch.nn import functional as F

MOMENTUM, PROPORTION, POWER = 0.9, 0.8, 8.0


def focal(weak, strong):
    """Eq. 3-5 with gamma 2 per pixel, of logits [B, C, H, W]."""
    log_p, log_q = weak.log_softmax(1), strong.log_softmax(1)
    p = log_p.exp()
    value = -(p.detach() * torch.expm1(log_q) ** 2 * log_q).sum(1)
    entropy = -(p * log_p).sum(1)
    return value + entropy - entropy.detach()


def masked_mean(values, mask):
    """Mean of the masked values; 0 for an empty mask."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def predictions(logits):
    """Confidence and class of every pixel."""
    with torch.no_grad():
        return logits.softmax(1).max(1)


def update_by_loop(alpha, confidence, labels, valid):
    """Eq. 8-9 as published: a sort for each class, its item read on the host."""
    alpha = alpha.tolist()
    labels = torch.where(valid, labels, len(alpha))
    for c in range(len(alpha)):
        values = confidence[labels == c]
        if len(values) == 0:
            continue
        values, _ = torch.sort(values, descending=True)
        share = PROPORTION * math.exp((alpha[c] - 1) * POWER)
        item = values[min(int(share * len(values)), len(values) - 1)].item()
        alpha[c] = MOMENTUM * alpha[c] + (1 - MOMENTUM) * item
    return torch.tensor(alpha, device=confidence.device)


def update_vectorised(alpha, confidence, labels, valid):
    """Eq. 8-9 with one sort of 64-bit keys (class, confidence descending)."""
    classes = len(alpha)
    labels = torch.where(valid, labels, classes).flatten()
    bits = confidence.flatten().view(torch.int32).long()
    keys = torch.sort((labels << 32) + (1 << 31) - bits).values
    count = torch.bincount(labels, minlength=classes + 1)[:classes]
    share = PROPORTION * torch.exp((alpha.double() - 1) * POWER)
    rank = torch.minimum((share * count).long(), (count - 1).clamp(min=0))
    place = (count.cumsum(0) - count + rank).clamp(max=len(keys) - 1)
    item = ((1 << 31) - (keys[place] & 0xFFFFFFFF)).int().view(torch.float32)
    return torch.where(count > 0, MOMENTUM * alpha + (1 - MOMENTUM) * item, alpha)


def choose_half(label, classes):
    """bool[C + 1]: ceil(n / 2) of the n classes of a label map; 255 never."""
    present = torch.bincount(label.flatten().clamp(max=classes), minlength=classes + 1)
    scores = torch.rand(classes, device=label.device)
    scores = torch.where(present[:classes] > 0, scores, 2.0)
    rank = scores.argsort().argsort()
    half = ((present[:classes] > 0).sum() + 1) // 2
    return F.pad((rank < half) & (scores < 2), (0, 1))


def mix(images, labels, target, pseudo, bank, alpha):
    """Eq. 10 with one long-tail class pasted: images, labels and masks [B, ...]."""
    scores = torch.where(bank["available"].any(1), 1 / alpha, -torch.inf)
    drawn = torch.multinomial(scores.softmax(0), len(images), replacement=True)
    slots = torch.multinomial(bank["available"][drawn].float(), 1)[:, 0]
    donor_label = bank["label"][drawn, slots].long()
    pasted = donor_label == drawn[:, None, None]
    images = torch.where(pasted[:, None], bank["image"][drawn, slots].float(), images)
    labels = torch.where(pasted, donor_label, labels)
    classes = len(alpha)
    mask = torch.stack(
        [choose_half(one, classes)[one.clamp(max=classes)] for one in labels]
    )
    mixed = torch.where(mask[:, None], images, target)
    return mixed, torch.where(mask, labels, pseudo), mask


def boundary_weights(mask):
    """Eq. 11: 2 where the 7 x 7 window holds both values, else 1."""
    both = torch.stack([mask, ~mask], 1).float()
    return 1.0 + F.max_pool2d(both, 7, 1, 3).prod(1)


def refresh(bank, batch):
    """Puts the batch's donors into slots of their classes drawn at random."""
    classes = batch["donor_class"].long()
    slots = torch.randint(
        bank["available"].shape[1], classes.shape, device=classes.device
    )
    bank["image"][classes, slots] = batch["donor_image"]
    bank["label"][classes, slots] = batch["donor_label"]
    bank["available"][classes, slots] = True
