"""The rules of the Hub's documentation for the YAML of a card."""

import re

import yaml


# Of huggingface.co/tasks those that see pictures, and their sub-tasks; `pipeline_tag` takes no sub-task.
TASKS = ("image-segmentation", "mask-generation", "object-detection", "zero-shot-object-detection", "other")
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
SUBTASKS = ("semantic-segmentation", "instance-segmentation", "panoptic-segmentation")


def card_errors(head: str, kind: str) -> list[str]:
    """One sentence for each thing that is wrong; `kind` is `model` or `dataset`."""
    try:
        data = yaml.safe_load(head) or {}
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    errors = [] if isinstance(data.get("license", ""), str) else ["license must be one name"]
    if data.get("license") == "other":
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", data.get("license_name") or ""):
            errors.append("license other needs a license_name of lower case and hyphens")
        if not re.fullmatch(r"LICENSE(\.md)?|https://.+", data.get("license_link") or ""):
            errors.append("license other needs a license_link: LICENSE, LICENSE.md or an address")
    for name in ("tags", "datasets", "configs"):
        if not isinstance(data.get(name, []), list):
            errors.append(f"{name} must be a list")
    allowed = {"pipeline_tag": TASKS, "task_categories": TASKS, "task_ids": SUBTASKS, "size_categories": SIZES}
    for name, known in allowed.items():
        values = [data[name]] if isinstance(data.get(name), str) else data.get(name, [])
        errors += [f"{name} {value} is not in the Hub's list" for value in values if value not in known]
    for model in data.get("model-index", []) if kind == "model" else []:
        if not model.get("name"):
            errors.append("model-index needs a name")
        for result in model.get("results", []):
            if result.get("task", {}).get("type") not in TASKS + SUBTASKS:
                errors.append(f"model-index: {result.get('task')} is not in the list of tasks")
            if not {"type", "name"} <= set(result.get("dataset", {})):
                errors.append("model-index: a dataset needs type and name")
            if not all({"type", "value"} <= set(metric) for metric in result.get("metrics", [])):
                errors.append("model-index: a metric needs type and value")
    return errors
