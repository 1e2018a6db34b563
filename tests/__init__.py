from tests.checker import shapes as shapes  # jaxtyping finds its checker one level down
