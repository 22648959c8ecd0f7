"""The paper's protocol: each class in turn is normal, and all other classes are anomalous."""
