from tests.support.asking import workplace

__all__ = ["workplace"]
