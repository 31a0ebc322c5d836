"""What distillation and fine-tuning share: the terms of their loss, and settings for the synthetic street."""

LOSSES = ("cross_entropy", "lovasz_loss")
# As the card calls them.
TERMS = {"total": "loss", "cross-entropy": "cross_entropy", "Lovász-softmax": "lovasz_loss"}
# The paper's schedule is for 28,000 frames; the street is small.
STREET_DEFAULTS = {
    "split": "train",
    "validation_split": "test",
    "num_train_epochs": 5,
    "per_device_train_batch_size": 2,
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "head_learning_rate": 3e-3,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "dataloader_num_workers": 0,
}
