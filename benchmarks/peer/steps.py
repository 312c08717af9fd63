"""The three train steps in PyTorch, as a careful user would write them.

Everything is on the device; nothing is read back but by the published loop over
classes. Networks are channels_last, with bfloat16 autocast where `amp`; the optimiser
is fused; `compile` puts the network, the perturbations and the focal loss through
torch.compile.
"""

import dataclasses

import torch
from torch.nn import functional as F

from benchmarks.peer import losses, perturbations
from benchmarks.peer.networks import normalize

HEADS = ("ffm", "conv_out", "conv_out16", "conv_out32", "layer5")  # ten times the rate
UPDATES = {"loop": losses.update_by_loop, "vectorised": losses.update_vectorised}


@dataclasses.dataclass
class Views:
    """What the deterministic part of a step is computed from.

    Attributes:
      source, label: f32[B, 3, H, W] in 0..255, i64[B, H, W].
      weak, strong, theta: of the target; None in the source stage.
      mixed, mixed_label, mask: of stage 2, else None.
    """

    source: torch.Tensor
    label: torch.Tensor
    weak: torch.Tensor | None = None
    strong: torch.Tensor | None = None
    theta: torch.Tensor | None = None
    mixed: torch.Tensor | None = None
    mixed_label: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class Step:
    """One training: `step(batch)` is one step of it.

    Args:
      network: from `networks`.
      config: of the run; its stage and weights.
      teacher: the frozen network of stage 2.
      bank: its donors, tensors.
      update: 'loop' (as published) or 'vectorised', of the thresholds.
      amp: bfloat16 autocast.
      compile: torch.compile.
    """

    def __init__(
        self,
        network,
        config,
        *,
        teacher=None,
        bank=None,
        update="vectorised",
        amp=False,
        compile=False,
    ):
        self.network = network.to(memory_format=torch.channels_last).train()
        self.teacher = teacher
        if teacher is not None:
            self.teacher = teacher.to(memory_format=torch.channels_last).eval()
        self.config, self.bank, self.amp = config, bank, amp
        self.device = next(network.parameters()).device
        self.alpha = torch.full(
            (config.num_classes,), config.thresholds.init, device=self.device
        )
        self.update, self.count = UPDATES[update], 0
        ready = torch.compile if compile else lambda function: function
        self.run = ready(self.network)
        self.strong, self.jitter = map(
            ready, (perturbations.strong, perturbations.source)
        )
        self.focal = ready(losses.focal)
        self.optimizer = optimizer(network, config)

    def __call__(self, batch):
        """A step on a batch of numpy or device arrays; returns the loss, not read."""
        self.schedule()
        with torch.no_grad():
            views = self.perturb(batch)
        loss = self.loss(views)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def schedule(self):
        """The poly schedule."""
        left = 1 - self.count / self.config.train.num_steps
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * left**0.9
        self.count += 1

    def put(self, batch):
        """A host batch on the device."""
        return {k: torch.as_tensor(v).to(self.device) for k, v in batch.items()}

    def perturb(self, batch) -> Views:
        """Everything that is drawn at random."""
        label = batch["source_label"].long()
        original = planes(batch["source_image"])
        views = Views(self.jitter(original), label)
        if "target_image" not in batch:
            return views
        views.weak = planes(batch["target_image"])
        views.theta = perturbations.affine(len(views.weak), self.device)
        grid, _ = perturbations.warp_grid(views.theta, views.weak.shape[2:])
        # Warped after normalisation, so that the frame's outside is the mean colour.
        views.strong = perturbations.warp(normalize(self.strong(views.weak)), grid)
        if self.teacher is None:
            return views
        losses.refresh(self.bank, batch)
        with self.autocast():
            pseudo = self.teacher(last(normalize(views.weak)))[0].argmax(1)
        views.mixed, views.mixed_label, views.mask = losses.mix(
            original, label, views.weak, pseudo, self.bank, self.alpha
        )
        views.mixed = self.strong(views.mixed)
        return views

    def loss(self, views: Views):
        """The loss of a stage; moves the thresholds."""
        images = [normalize(views.source)]
        if views.weak is not None:
            images += [normalize(views.weak), views.strong]
        if views.mixed is not None:
            images.append(normalize(views.mixed))
        with self.autocast():
            heads = self.run(last(torch.cat(images)))
        size = len(views.label)
        heads = [logits.split(size) for logits in heads]
        values = [F.cross_entropy(x[0], views.label, ignore_index=255) for x in heads]
        loss = sum(values) / len(values)
        if views.weak is not None:
            loss = loss + self.config.loss.lambda_u * self.unsupervised(views, heads)
        if views.mixed is not None:
            labels = views.mixed_label
            value = F.cross_entropy(
                heads[0][3], labels, ignore_index=255, reduction="none"
            )
            value = losses.masked_mean(
                losses.boundary_weights(views.mask) * value, labels != 255
            )
            loss = loss + self.config.loss.lambda_m * value
        return loss

    def unsupervised(self, views, heads):
        """Mean over the heads of eq. 3-5 above the thresholds."""
        grid, valid = perturbations.warp_grid(views.theta, views.weak.shape[2:])
        terms = []
        for weak, strong in (logits[1:3] for logits in heads):
            weak = perturbations.warp(weak, grid)
            confidence, labels = losses.predictions(weak)
            if not terms:
                self.alpha = self.update(self.alpha, confidence, labels, valid)
            mask = valid & (confidence > self.alpha[labels])
            terms.append(losses.masked_mean(self.focal(weak, strong), mask))
        return sum(terms) / len(terms)

    def autocast(self):
        """bfloat16 where asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)


def optimizer(network, config):
    """Fused SGD: heads at ten times the rate, decay on kernels only."""
    groups = []
    for head in (False, True):
        for kernels in (False, True):
            chosen = [
                p
                for name, p in network.named_parameters()
                if (name.split(".")[0] in HEADS) == head and (p.ndim > 1) == kernels
            ]
            rate = config.optim.learning_rate
            rate *= config.optim.head_multiplier if head else 1.0
            decay = config.optim.weight_decay if kernels else 0.0
            groups.append({"params": chosen, "base": rate, "weight_decay": decay})
    return torch.optim.SGD(groups, lr=1.0, momentum=config.optim.momentum, fused=True)


def planes(images):
    """f32[B, 3, H, W] of u8[B, H, W, 3]."""
    return images.permute(0, 3, 1, 2).float().contiguous()


def last(images):
    """Channels last, as the networks are."""
    return images.contiguous(memory_format=torch.channels_last)
