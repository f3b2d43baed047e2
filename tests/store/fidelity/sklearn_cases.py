"""What is tried of scikit-learn."""

import numpy as np

from .registered import case


def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    return features, (features[:, 0] + features[:, 1] > 0).astype(int)


def fitted(name):
    def make():
        from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC
        from sklearn.tree import DecisionTreeClassifier

        kinds = {
            "LogisticRegression": LogisticRegression,
            "RandomForestClassifier": lambda: RandomForestClassifier(5, random_state=0),
            "GradientBoostingClassifier": lambda: GradientBoostingClassifier(n_estimators=3, random_state=0),
            "HistGradientBoostingClassifier": lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0),
            "DecisionTreeClassifier": lambda: DecisionTreeClassifier(random_state=0),
            "KNeighborsClassifier": KNeighborsClassifier,
            "SVC": SVC,
            "Pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        }
        return kinds[name]().fit(*data())

    return make


for _name in ("LogisticRegression", "RandomForestClassifier", "GradientBoostingClassifier", "HistGradientBoostingClassifier", "DecisionTreeClassifier", "KNeighborsClassifier", "SVC", "Pipeline"):  # fmt: skip
    case("scikit-learn", _name, fitted(_name))
