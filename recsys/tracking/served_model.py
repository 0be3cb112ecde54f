"""A saved model as MLflow serves it, loaded from this code and the model's folder.

MLflow runs this file as a script. `predict` takes a table with a column `user_id` of the model's
users, or with a column `history` of lists of items that users like, the earliest first.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa

from recsys.errors import Argument, InputError
from recsys.serving import saved_model
from recsys.serving.fold_in import with_histories
from recsys.serving.recommend import recommend, recommend_to


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

        Columns: `user_id`, `rank` from 1, `item_id`, `score`, `title`. The `user_id` of a history
        is the one beside it, or else the index of its row. A history without an item of the
        training data gets no recommendations.
        """
        k = (params or {}).get("k", 10)
        best: pd.DataFrame = self._recommend(model_input, k).to_pandas()
        return best

    def _recommend(self, model_input: pd.DataFrame, k: int) -> pa.Table:
        if "history" in model_input:
            ids, histories = model_input.get("user_id", model_input.index), model_input["history"]
            if histories.isna().any():
                without = ids[histories.isna()].tolist()[0]
                raise InputError(
                    Argument("history"),
                    "must be a list in each row",
                    f"none for user_id {without}",
                    "Ask for users without one in another request, by user_id alone.",
                )
            saved = with_histories(self.saved, histories.tolist(), pa.array(ids))
            return recommend_to(saved, np.flatnonzero(saved.is_trained), k)
        if "user_id" in model_input:
            return recommend(self.saved, model_input["user_id"].tolist(), k)
        raise InputError(
            "input",
            "must have a column user_id or history",
            ", ".join(map(str, model_input)) or "none",
            "Add one.",
        )


mlflow.models.set_model(ServedModel())
