"""What the Hub would say against a card's YAML: the rules of its documentation, not its own program."""

import yaml


# Of huggingface.co/tasks those that see pictures, and their sub-tasks; `pipeline_tag` takes no sub-task.
TASKS = ("image-segmentation", "mask-generation", "object-detection", "zero-shot-object-detection", "other")
SUBTASKS = ("semantic-segmentation", "instance-segmentation", "panoptic-segmentation")


def card_errors(head: str, kind: str) -> list[str]:
    """One sentence for each thing that is wrong; `kind` is `model` or `dataset`."""
    try:
        data = yaml.safe_load(head) or {}
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    errors = [] if isinstance(data.get("license", ""), str) else ["license must be one name"]
    for name in ("tags", "datasets", "configs"):
        if not isinstance(data.get(name, []), list):
            errors.append(f"{name} must be a list")
    if data.get("pipeline_tag", TASKS[0]) not in TASKS:
        errors.append(f"pipeline_tag {data['pipeline_tag']} is not in the list of tasks")
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
