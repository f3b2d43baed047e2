"""Random numbers: seeded streams are drawn from in the order of the cells, also after hits."""

from oracle import Case

NP = "import numpy as np"


def drawn(name, seed, draw, watch=("x", "y", "z")):
    """A stream is seeded by a plain cell, drawn from by two assets and by a plain cell."""
    return Case(
        name,
        [[seed, f"%%asset x\nx = {draw}", f"%%asset y\ny = {draw}", f"z = {draw}"]] * 2,
        list(watch),
        reused=["x", "y"],
    )


CASES = [
    Case("numpy_seed", [[NP, "np.random.seed(42)", "%%asset x\nx = float(np.random.rand())"]] * 2, ["x"], reused=["x"]),
    Case(
        "numpy_seed_edited",
        [[NP, f"np.random.seed({seed})", "%%asset x\nx = float(np.random.rand())"] for seed in (42, 7)],
        ["x"],
    ),
    drawn("numpy_stream", f"{NP}\nnp.random.seed(1)", "float(np.random.rand())"),
    drawn("random_stream", "import random\nrandom.seed(1)", "random.random()"),
    drawn("seed_imported_from_numpy", "import numpy as np\nfrom numpy.random import seed, rand\nseed(3)", "float(rand())"),
    drawn("seed_imported_from_random", "from random import seed, randint\nseed(3)", "randint(0, 10**9)"),
    drawn("numpy_generator", f"{NP}\nrng = np.random.default_rng(0)", "float(rng.random())"),
    drawn("numpy_random_state", f"{NP}\nrs = np.random.RandomState(3)", "float(rs.normal())"),
    drawn("random_instance", "import random\nr = random.Random(1)", "r.random()"),
    drawn(
        "seed_in_a_helper",
        f"import random\n{NP}\ndef seed_all(n):\n    random.seed(n)\n    np.random.seed(n)\nseed_all(5)",
        "(random.random(), float(np.random.rand()))",
    ),
    drawn(
        "frame_sampled",
        f"{NP}\nimport pandas as pd\ndf = pd.DataFrame({{'v': range(100)}})\nnp.random.seed(2)",
        "df.sample(3).v.tolist()",
    ),
    drawn("scipy_draws", f"{NP}\nfrom scipy import stats\nnp.random.seed(2)", "float(stats.norm.rvs())"),
    drawn(
        "train_test_split_without_a_state",
        f"{NP}\nfrom sklearn.model_selection import train_test_split\nnp.random.seed(2)",
        "train_test_split(list(range(20)))[1]",
    ),
    drawn(
        "state_restored",
        f"{NP}\nnp.random.seed(4)\nstate = np.random.get_state()\nnp.random.rand(10)\nnp.random.set_state(state)",
        "float(np.random.rand())",
    ),
    drawn(
        "python_state_restored",
        "import random\nrandom.seed(4)\nstate = random.getstate()\nrandom.random()\nrandom.setstate(state)",
        "random.random()",
    ),
    drawn(
        "generator_in_a_dict",
        f"{NP}\nctx = {{'rng': np.random.default_rng(1), 'n': 2}}",
        "ctx['rng'].integers(0, 10**9, ctx['n']).tolist()",
    ),
    drawn(
        "generator_in_an_instance",
        f"{NP}\nclass Sim:\n    def __init__(self, seed):\n        self.rng = np.random.default_rng(seed)\n    def draw(self):\n        return float(self.rng.random())\nsim = Sim(3)",
        "sim.draw()",
    ),
    drawn("generator_with_children", f"{NP}\nrng = np.random.default_rng(1)", "float(rng.spawn(1)[0].random())"),
    drawn(
        "seed_sequence",
        f"{NP}\nseq = np.random.SeedSequence(7)",
        "float(np.random.default_rng(seq.spawn(2)[1]).random())",
    ),
    drawn(
        "generators_that_share_a_sequence",
        f"{NP}\nseq = np.random.SeedSequence(7)\nrngs = {{'a': np.random.default_rng(seq), 'b': np.random.Generator(np.random.PCG64(seq))}}",
        "float(rngs['a'].spawn(1)[0].random()), float(rngs['b'].random())",
    ),
    drawn("bit_generator", f"{NP}\nbits = np.random.Philox(3)", "int(bits.random_raw())"),
    drawn("other_bit_generator", f"{NP}\nrng = np.random.Generator(np.random.MT19937(5))", "float(rng.random())"),
    drawn("gauss_keeps_half", "import random\nrandom.seed(2)", "random.gauss(0, 1)"),
    Case(
        "forest_without_a_state",
        [
            [
                NP,
                "from sklearn.ensemble import RandomForestRegressor\nX = np.arange(20.0).reshape(10, 2)\ny = X[:, 0] ** 2",
                "np.random.seed(3)",
                "%%asset predicted\nmodel = RandomForestRegressor(3).fit(X, y)\npredicted = model.predict([[4.5, 5.5]]).tolist()",
                "after = float(np.random.rand())",
            ]
        ]
        * 2,
        ["predicted", "after", "model.predict([[1.0, 2.0]]).tolist()"],
        reused=["predicted"],
    ),
    Case(
        "list_shuffled",
        [
            [
                "import random\nrandom.seed(3)\ncards = list(range(10))",
                "%%asset first\nrandom.shuffle(cards)\nfirst = cards[0]",
                "%%asset second\nrandom.shuffle(cards)\nsecond = cards[0]",
                "left = list(cards)",
            ]
        ]
        * 2,
        ["first", "second", "left"],
        reused=["first", "second"],
    ),
    Case(
        "seed_edited_counts_for_its_draws",
        [
            [
                NP,
                f"np.random.seed({seed})",
                "%%asset x\nx = float(np.random.rand())",
                "%%asset n\nn = 3 * 2",
                "%%asset y\ny = x + n",
            ]
            for seed in (1, 2)
        ],
        ["x", "n", "y"],
        reused=["n"],
    ),
    Case(
        "seed_of_the_other_stream_edited",
        [
            [
                "import random, numpy as np",
                f"random.seed(1)\nnp.random.seed({seed})",
                "%%asset x\nx = random.random()",
                "%%asset y\ny = float(np.random.rand())",
            ]
            for seed in (1, 2)
        ],
        ["x", "y"],
        reused=["x"],
    ),
    Case(
        "seed_in_the_middle_edited",
        [
            [
                NP,
                "np.random.seed(1)",
                "%%asset x\nx = float(np.random.rand())",
                f"np.random.seed({seed})",
                "%%asset y\ny = float(np.random.rand())",
            ]
            for seed in (2, 3, 3)
        ],
        ["x", "y"],
        reused=["x", "y"],
    ),
    Case(
        "seed_in_the_middle_edited_once",
        [
            [
                NP,
                "np.random.seed(1)",
                "%%asset x\nx = float(np.random.rand())",
                f"np.random.seed({seed})",
                "%%asset y\ny = float(np.random.rand())",
            ]
            for seed in (2, 3)
        ],
        ["x", "y"],
        reused=["x"],
        ran=["y"],
    ),
    Case(
        "seed_in_the_asset_cell",
        [
            [
                NP,
                "%%asset x\nnp.random.seed(5)\nx = float(np.random.rand())",
                "z = float(np.random.rand())",
                "%%asset y\ny = float(np.random.rand())",
            ]
        ]
        * 2,
        ["x", "y", "z"],
        reused=["x", "y"],
    ),
    Case(
        "seed_in_the_asset_cell_edited",
        [
            [
                NP,
                f"%%asset x\nnp.random.seed({seed})\nx = 1",
                "%%asset y\ny = float(np.random.rand())",
                "z = float(np.random.rand())",
            ]
            for seed in (5, 6, 5)
        ],
        ["x", "y", "z"],
    ),
    Case(
        "draw_in_the_middle_edited",
        [
            [
                NP,
                "np.random.seed(1)",
                "%%asset x\nx = float(np.random.rand())",
                f"%%asset y\ny = np.random.rand({k}).tolist()",
                "%%asset z\nz = float(np.random.rand())",
            ]
            for k in (1, 2)
        ],
        ["x", "y", "z"],
        reused=["x"],
    ),
    Case(
        "plain_draw_between",
        [
            [
                NP,
                "np.random.seed(1)",
                "%%asset x\nx = float(np.random.rand())",
                f"p = np.random.rand({k}).tolist()",
                "%%asset z\nz = float(np.random.rand())",
            ]
            for k in (1, 1, 2)
        ],
        ["x", "p", "z"],
        reused=["x"],
    ),
    Case(
        "draws_in_a_loop_of_a_helper",
        [
            [
                "import random\nrandom.seed(9)\ndef walk(n):\n    return [random.choice('ab') for _ in range(n)]",
                "%%asset x\nx = walk(30)",
                "%%asset y\ny = walk(30)",
                "z = walk(3)",
            ]
        ]
        * 2,
        ["x", "y", "z"],
        reused=["x", "y"],
    ),
    Case(
        "generator_made_in_the_cell",
        [
            [
                NP,
                f"SEED = {seed}",
                "%%asset x\nrng = np.random.default_rng(SEED)\nx = float(rng.random())",
                "z = float(rng.random())",
                "%%asset y\ny = float(rng.random())",
            ]
            for seed in (1, 1, 2)
        ],
        ["x", "y", "z"],
    ),
    Case(
        "generator_is_the_asset",
        [
            [
                NP,
                "%%asset rng\nrng = np.random.default_rng(8)",
                "%%asset x\nx = float(rng.random())",
                "%%asset y\ny = float(rng.random())",
                "z = float(rng.random())",
            ]
        ]
        * 2,
        ["x", "y", "z"],
        reused=["rng", "x", "y"],
    ),
    Case(
        "split_after_a_seed_and_a_fit",
        [
            [
                "import numpy as np\nfrom sklearn.model_selection import train_test_split\nfrom sklearn.linear_model import SGDRegressor\nnp.random.seed(0)\nX = np.random.rand(40, 2)\ny = X @ [1.0, 2.0]",
                "%%multi_asset X_train X_test y_train y_test\nX_train, X_test, y_train, y_test = train_test_split(X, y)",
                "%%asset model\nmodel = SGDRegressor(max_iter=5, tol=None).fit(X_train, y_train)",
                "%%asset score\nscore = round(model.score(X_test, y_test), 8)",
                "z = float(np.random.rand())",
            ]
        ]
        * 2,
        ["score", "z", "X_test.sum().round(8)"],
        reused=["X_train", "model", "score"],
    ),
    Case(
        "seed_in_a_cell_that_imports_numpy_first",
        [
            [
                "%%asset start\nimport numpy as np\nnp.random.seed(5)",
                "x = float(np.random.rand())",
                "y = float(np.random.rand())",
            ]
        ]
        * 2,
        ["x", "y"],
        reused=["start"],
    ),
    Case(
        "another_stream_seeded_in_between",
        [
            [
                f"import random\n{NP}\nnp.random.seed(1)",
                "%%asset x\nx = int(np.random.randint(1000))",
                "random.seed(8)",
                "%%asset y\ny = x + 1",
                "z = int(np.random.randint(1000))",
            ]
        ]
        * 2,
        ["x", "y", "z"],
        reused=["x", "y"],
    ),
    Case(
        "seeded_again_further_down",
        [
            [
                f"{NP}\nnp.random.seed(1)",
                "%%asset x\nx = int(np.random.randint(1000))",
                "np.random.seed(2)",
                "%%asset y\ny = x + int(np.random.randint(1000))",
                "z = int(np.random.randint(1000))",
            ]
        ]
        * 2,
        ["x", "y", "z"],
        reused=["x", "y"],
    ),
]
