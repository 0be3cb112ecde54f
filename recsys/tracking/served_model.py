"""A saved model as MLflow serves it, loaded from this code and the model's folder.

MLflow runs this file as a script. `predict` takes a table with a column `user_id` and returns each
user's recommendations.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from recsys.serving import saved_model
from recsys.serving.recommend import recommend


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Model that recommends items to users by their own ids."""

    def load_context(self, context: Any) -> None:
        """Read the saved model."""
        self.saved = saved_model.load(Path(context.artifacts["model"]))

    def predict(
        self,
        context: Any,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return the best `params["k"]` items (10 by default) of each user.

        Columns: `user_id`, `rank` from 1, `item_id`, `score`, `title`.
        """
        best: pd.DataFrame = recommend(
            self.saved, model_input["user_id"].tolist(), (params or {}).get("k", 10)
        ).to_pandas()
        return best


mlflow.models.set_model(ServedModel())
