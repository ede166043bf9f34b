"""Models that end in a neck: pooled features, normalised for the classifier and retrieval (SAFR, Sect. 4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from pyreid.layers.embedding import full_precision, run_widened
from pyreid.layers.necks import Neck, make_neck
from pyreid.models.base import ModelOutput, ReIDModel

CLASSIFIER_STD = 0.001


class NeckedModel(ReIDModel):
    """Base of models whose ``"features"`` (N, D) become the ``"embedding"`` (N, D) in a neck.

    The triplet and center losses take the features; the bias-free classifier (logits ``"id"``) and retrieval take the
    embedding. A subclass makes its trunk, then calls :meth:`add_head`, and ends its forward pass with :meth:`head`.
    """

    neck: nn.Module
    dropout: nn.Module
    classifier: nn.Linear | None

    def add_head(self, neck: Neck, *, dropout: float = 0.0) -> None:
        """Make the neck and, for a model with classes, the classifier.

        Args:
            neck: see :func:`~pyreid.layers.make_neck`.
            dropout: probability of zeroing an entry of the embedding before the classifier; 0 makes no dropout.
        """
        self.neck = make_neck(neck, self.embedding_dim)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = None
        if self.config.num_classes:
            self.classifier = nn.Linear(self.embedding_dim, self.config.num_classes, bias=False)
            nn.init.normal_(self.classifier.weight, std=CLASSIFIER_STD)

    def head(self, features: Tensor) -> ModelOutput | Tensor:
        """What the model returns for its features (N, D): see :class:`ReIDModel`; at least float32."""
        features = full_precision(features)
        embedding = run_widened(self.neck, features)
        if not self.training:
            return embedding
        logits = {} if self.classifier is None else {"id": run_widened(self.classifier, self.dropout(embedding))}
        return ModelOutput({"features": features, "embedding": embedding}, logits)
